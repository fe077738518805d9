"""Point-in-time features in the ranker: scaled as in training, in both forms, and nothing changes without them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_data import NUM_ITEMS
from ranker_cases import DIM, HISTORIES, TASKS, name
from torch.nn import functional

from recsys.batch import Batch, Ids
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.export.graphs import export_ranking
from recsys.export.parity import TOLERANCE, Parity, check_ranking, open_session
from recsys.models.dense_features import DenseFeatures, Scale
from recsys.models.dtrn import DTRN
from recsys.models.mean_history import MeanHistory
from recsys.models.mmoe import MMoE
from recsys.models.ranker import Ranker, RankerBody, RankerDesign, RankingGraph
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
SCALE = Scale(torch.tensor([10.0, 0.5, 3.0]), torch.tensor([4.0, 0.1, 0.0]))
NAMES = ("clicks", "rate", "constant")


def design(sharing: object = None, history: object = None) -> RankerDesign:
    return RankerDesign(history or MeanHistory(), None, sharing or MMoE(experts=2, hidden=4), DIM, TASKS, dense=NAMES)


def test_values_are_scaled_by_the_training_examples_and_clipped() -> None:
    dense = DenseFeatures(3, 2)
    dense.set_scale(SCALE)
    with torch.no_grad():
        dense.linear.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    value_BCP = torch.tensor([[[14.0, 0.5, 3.0]], [[10_000.0, 0.4, 4.0]], [[-10_000.0, 0.6, 2.5]]])
    expected = torch.tensor([[[1.0, 0.0]], [[5.0, -1 + 1]], [[-5.0, 1 - 0.5]]])  # what never varied has a deviation of 1
    torch.testing.assert_close(dense(value_BCP), expected)


def test_the_field_begins_as_wide_as_the_others() -> None:
    torch.manual_seed(0)
    field = DenseFeatures(6, 64)(torch.randn(2000, 1, 6)).detach()
    assert field.std() == pytest.approx(0.1 * 64**-0.5, rel=0.2)  # as the tables' vectors


def test_without_features_there_is_no_such_field() -> None:
    plain, reading = RankerBody(replace(design(), dense=()), 3), RankerBody(design(), 3)
    assert not [key for key in plain.state_dict() if "dense" in key]
    assert len(reading.input[0].weight) - len(plain.input[0].weight) == DIM
    assert {key for key in reading.state_dict() if key.startswith("dense.")} == {
        "dense.mean_P", "dense.std_P", "dense.linear.weight", "dense.linear.bias",
    }  # fmt: skip


@pytest.fixture
def make_case(planted: Dataset, group: torch.device, tmp_path: Path) -> Callable[..., tuple[Ranker, RankingGraph, Path]]:
    def make(parts: RankerDesign) -> tuple[Ranker, RankingGraph, Path]:
        torch.manual_seed(0)
        ranker = Ranker(parts, planted.num_users, NUM_ITEMS, [], SCALE)
        with torch.no_grad():
            assert ranker.body.dense is not None
            ranker.body.dense.linear.weight.mul_(50)
        model = place(ranker, group).eval()
        return model, RankingGraph(model_state(model), parts, [], {}, 4), tmp_path / "ranking.onnx"

    return make


def check(model: Ranker, path: Path, planted: Dataset) -> Parity:
    return check_ranking(
        model, path, num_users=planted.num_users, num_items=NUM_ITEMS, max_history=9, ranker_history=4, codes={},
        context_sizes=[], seed=1,
    )  # fmt: skip


@pytest.mark.parametrize("sharing", [MMoE(), DTRN()], ids=name)
def test_both_forms_read_them(
    sharing: object, planted: Dataset, make_case: Callable[..., tuple[Ranker, RankingGraph, Path]]
) -> None:
    parts = design(sharing, HISTORIES[-1])
    model, graph, path = make_case(parts)
    export_ranking(graph, 9, 0, path)
    parity = check(model, path, planted)
    assert parity.max_error <= TOLERANCE
    assert parity.sample["ranking_dense"].shape == (7, 3, 3)
    assert parity.sample["ranking_dense"].dtype == np.float32
    given = {each.name: parity.sample[f"ranking_{each.name}"] for each in open_session(path).get_inputs()}
    shifted = {**given, "dense": given["dense"] + np.float32([2, 0.05, 0])}
    before, after = (open_session(path).run(None, each)[0] for each in (given, shifted))
    assert np.abs(after - before).max() > 1e-3, "the features change nothing"


def test_the_check_notices_another_scale(planted: Dataset, make_case: Callable[..., tuple[Ranker, RankingGraph, Path]]) -> None:
    model, graph, path = make_case(design())
    assert graph.body.dense is not None
    graph.body.dense.mean_P += 2
    export_ranking(graph, 9, 0, path)
    with pytest.raises(InputError, match=r"ranking\.onnx differs from torch"):
        check(model, path, planted)


def test_a_label_that_only_a_feature_tells_is_learned(
    group: torch.device, make_case: Callable[..., tuple[Ranker, RankingGraph, Path]]
) -> None:
    model, _, _ = make_case(design())
    rng, ones = np.random.default_rng(0), torch.ones(256, dtype=torch.int64)
    optimizer = torch.optim.Adam(model.body.parameters(), lr=0.01)
    for _ in range(150):
        dense_BF = torch.tensor(rng.normal([10, 0.5, 3], [4, 0.1, 0], (256, 3)), dtype=torch.float32)
        batch = Batch({"user": Ids(ones, ones), "item": Ids(ones, ones), "history": Ids(ones, ones)}, dense_BF=dense_BF)
        loss = functional.binary_cross_entropy_with_logits(
            model(model.embeddings(model.look_ups(batch)), batch), (dense_BF[:, :1] > 10).float().expand(-1, len(TASKS))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3  # log 2 without them
