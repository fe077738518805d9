"""The ranking graph answers as torch does, at every shape. Shapes: B = requests, L = history, C = candidates, T = tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from planted_data import NUM_ITEMS
from ranker_cases import DIM, HISTORIES, INTERACTIONS, SHARINGS, TASKS, name

from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.export.graphs import export_ranking
from recsys.export.parity import TOLERANCE, Parity, check_ranking
from recsys.models.dtrn import DTRN
from recsys.models.esmm import ESMM
from recsys.models.mean_history import MeanHistory
from recsys.models.mmoe import MMoE
from recsys.models.ranker import Ranker, RankerDesign, RankingGraph
from recsys.train.checkpoint import load_model_state, model_state
from recsys.train.distributed import place

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
RANKER_HISTORY = 4
# An interaction with one of the readers, so that each is exported without doubling the work.
DESIGNS = [
    RankerDesign(history, INTERACTIONS[-1] if i else None, sharing, DIM, TASKS, frozenset({"like"} if i else ()))
    for sharing in SHARINGS if sharing != ESMM()
    for i, history in enumerate(HISTORIES)
]  # fmt: skip
DESIGNS = [d for d in DESIGNS if not (d.regression and getattr(d.sharing, "given", None))] + [
    RankerDesign(HISTORIES[-1], None, sharing, DIM, TASKS) for sharing in SHARINGS if getattr(sharing, "given", None)
]


@dataclass(frozen=True)
class Case:
    """A ranker with vectors large enough to matter, its graph on disk, and the check of one against the other."""

    model: Ranker
    graph: RankingGraph
    path: Path
    check: Callable[[], Parity]


@pytest.fixture
def make_case(planted: Dataset, group: torch.device, tmp_path: Path) -> Callable[..., Case]:
    def make(design: RankerDesign, *, max_history: int = 9, with_features: bool = True) -> Case:
        features = planted.features if with_features else []
        codes = {f["name"]: (f["owner"], planted.codes(f["name"], f["owner"])) for f in features if f["owner"] != "context"}
        sizes = [(f["name"], f["size"]) for f in features if f["owner"] == "context"]
        torch.manual_seed(0)
        model = place(Ranker(design, planted.num_users, NUM_ITEMS, features), group).eval()
        load_model_state(model, {key: 30 * t if ".collection." in key else t for key, t in model_state(model).items()})
        only_codes = {feature: rows for feature, (_, rows) in codes.items()}
        graph = RankingGraph(model_state(model), design, features, only_codes, RANKER_HISTORY)
        path = tmp_path / "ranking.onnx"
        export_ranking(graph, max_history, len(sizes), path)

        def check() -> Parity:
            return check_ranking(
                model, path, num_users=planted.num_users, num_items=NUM_ITEMS, max_history=max_history,
                ranker_history=RANKER_HISTORY, codes=codes, context_sizes=sizes, seed=1,
            )  # fmt: skip

        return Case(model, graph, path, check)

    return make


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("design", DESIGNS, ids=name)
def test_every_design_agrees_with_torch(design: RankerDesign, make_case: Callable[..., Case]) -> None:
    case = make_case(design)
    parity = case.check()
    assert parity.max_error <= TOLERANCE
    assert parity.sample["ranking_probability"].std() > 0.01, "answers that are all alike prove nothing"
    expected = {"user", "history", "length", "item", "context"} | ({"behaviour"} if design.sharing.reads_behaviours else set())
    assert {each.name for each in session(case.path).get_inputs()} == expected
    assert set(parity.sample) == {f"ranking_{key}" for key in (*expected, "probability")}


@pytest.mark.parametrize(
    ("sharing", "with_features", "max_history"),
    [(MMoE(), True, 9), (MMoE(), False, 1), (DTRN(), True, 1), (DTRN(), False, 9)],
    ids=lambda value: name(value) if isinstance(value, MMoE | DTRN) else str(value),
)
def test_dimensions_stay_free_with_and_without_features(
    sharing: Any, with_features: bool, max_history: int, planted: Dataset, make_case: Callable[..., Case]
) -> None:
    design = RankerDesign(MeanHistory(), None, sharing, DIM, TASKS)
    case = make_case(design, max_history=max_history, with_features=with_features)
    assert case.check().max_error <= TOLERANCE
    run, rng = session(case.path), np.random.default_rng(0)
    for batch, length, candidates in ((1, 1, 1), (7, max_history, 5), (64, 1, 20)):
        inputs = {
            "user": rng.integers(0, planted.num_users, batch), "history": rng.integers(0, NUM_ITEMS, (batch, length)),
            "length": rng.integers(0, length + 1, batch), "item": rng.integers(0, NUM_ITEMS, (batch, candidates)),
        }  # fmt: skip
        if with_features:
            inputs["context"] = rng.integers(-2, 99, (batch, 1))
        if sharing.reads_behaviours:
            inputs["behaviour"] = rng.integers(0, 2 ** len(TASKS), (batch, length))
        [probability_BCT] = run.run(["probability"], inputs)
        assert probability_BCT.shape == (batch, candidates, len(TASKS))
        assert ((probability_BCT > 0) & (probability_BCT < 1)).all()


def test_the_check_notices_a_graph_of_other_weights(make_case: Callable[..., Case]) -> None:
    case = make_case(RankerDesign(MeanHistory(), None, MMoE(), DIM, TASKS))
    with torch.no_grad():
        case.graph.body.sharing.towers.bias += 0.01
    export_ranking(case.graph, 9, 1, case.path)
    with pytest.raises(InputError, match=r"ranking\.onnx differs from torch by .* the bundle is not written"):
        case.check()
