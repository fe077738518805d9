"""ONNX answers as torch does, at every shape. Shapes: B = requests, L = history, C = candidates, K = items returned."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from planted_data import NUM_ITEMS, planted_config
from torch import nn

from pipelines import export as pipeline
from pipelines.train import train_ranker, train_retriever
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.export.graphs import export_candidates
from recsys.export.parity import TOLERANCE, check_retrieval, retrieval_scores
from recsys.heads.similarity import Dot
from recsys.models.item_codes import ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.retriever import RetrievalGraph, Retriever
from recsys.models.sasrec import SASRec
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


@dataclass(frozen=True)
class Trained:
    config: RunConfig
    data: Dataset
    root: Path


@pytest.fixture(scope="module")
def trained(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """One epoch is enough: parity does not ask for quality."""
    config, root = planted_config({"epochs": 1}), tmp_path_factory.mktemp("export")
    for part, train in (("retriever", train_retriever), ("ranker", train_ranker)):
        train(config, planted, root / part, device=group, progress=Silent())
    return Trained(config, planted, root)


@pytest.fixture
def workspace(trained: Trained) -> Iterator[Workspace]:
    """The trained checkpoints, and a place for the bundle that is clean again afterwards."""
    workspace = Workspace(trained.root)
    yield workspace
    if workspace.bundle.exists():
        for path in workspace.bundle.iterdir():
            path.unlink()
        workspace.bundle.rmdir()


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_both_graphs_agree_with_torch(trained: Trained, workspace: Workspace, group: torch.device) -> None:
    manifest = pipeline.export_run(trained.config, trained.data, workspace, device=group)
    assert 0 <= max(manifest["parity_max_error"].values()) <= TOLERANCE
    assert read_manifest(workspace.bundle, "bundle", verify=True)["model"]["tasks"] == ["click", "like"]
    sample = np.load(workspace.bundle / pipeline.PARITY_FILE)
    for part, output in (("retrieval", "score"), ("ranking", "probability")):
        run = session(workspace.bundle / f"{part}.onnx")
        [found] = run.run([output], {each.name: sample[f"{part}_{each.name}"] for each in run.get_inputs()})
        np.testing.assert_allclose(found, sample[f"{part}_{output}"], atol=TOLERANCE)


@pytest.mark.parametrize("part", ["retrieval", "ranking"])
def test_a_graph_that_differs_stops_the_run_and_nothing_is_written(
    part: str, trained: Trained, workspace: Workspace, group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., nn.Module] = getattr(pipeline.models, f"{part}_graph")

    def perturbed(*args: Any) -> nn.Module:
        graph = real(*args)
        with torch.no_grad():
            (graph.encoder.norm if part == "retrieval" else graph.body.sharing.towers).bias += 0.01
        return graph

    monkeypatch.setattr(pipeline.models, f"{part}_graph", perturbed)
    with pytest.raises(InputError, match=rf"{part}\.onnx differs from torch by .* the bundle is not written"):
        pipeline.export_run(trained.config, trained.data, workspace, device=group)
    assert {path.name for path in trained.root.iterdir()} == {"retriever", "ranker"}


def test_an_older_bundle_survives_a_failure(
    trained: Trained, workspace: Workspace, group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pipeline.export_run(trained.config, trained.data, workspace, device=group)["fingerprint"]
    monkeypatch.setattr(pipeline, "check_ranking", lambda *_, **__: (_ for _ in ()).throw(InputError("differs")))
    with pytest.raises(InputError, match="differs"):
        pipeline.export_run(trained.config, trained.data, workspace, device=group)
    assert read_manifest(workspace.bundle, "bundle", verify=True)["fingerprint"] == before


@pytest.mark.parametrize("max_history", [1, 2, 3, 20])
def test_retrieval_keeps_its_free_dimensions(max_history: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = RetrievalGraph(SASRec(dim=8, blocks=1, heads=2), max_history, torch.randn(NUM_ITEMS, 8), num_candidates=7).eval()
    export_candidates(graph, max_history, tmp_path / "retrieval.onnx")
    run, rng = session(tmp_path / "retrieval.onnx"), np.random.default_rng(0)
    for batch, length, excluded in ((1, 1, 1), (7, max_history, 4), (64, max(1, max_history // 2), 2)):
        history_BL = rng.integers(FIRST_ID, NUM_ITEMS, (batch, length))
        length_B, exclude_BE = rng.integers(0, length + 1, batch), rng.integers(FIRST_ID, NUM_ITEMS, (batch, excluded))
        item_BK, score_BK = run.run(["item", "score"], {"history": history_BL, "length": length_B, "exclude": exclude_BE})
        with torch.no_grad():
            expected = graph(*map(torch.from_numpy, (history_BL, length_B, exclude_BE)))
        np.testing.assert_array_equal(item_BK, expected[0].numpy())
        np.testing.assert_allclose(score_BK, expected[1].numpy(), atol=1e-5)
        assert item_BK.shape == (batch, 7)
        assert not (item_BK[:, :, None] == exclude_BE[:, None, :]).any(), "an excluded item came back"
        assert (item_BK >= FIRST_ID).all()
        assert (np.diff(score_BK, axis=1) <= 0).all()


def test_retrieval_check_notices_a_wrong_item_in_the_right_order_of_scores(group: torch.device, tmp_path: Path) -> None:
    """A graph that forgets to exclude gives consistent scores, but not the best allowed items."""

    class Forgetful(RetrievalGraph):
        def forward(self, history_BL: torch.Tensor, length_B: torch.Tensor, exclude_BE: torch.Tensor) -> Any:
            return super().forward(history_BL, length_B, exclude_BE * 0 + FIRST_ID)

    spec = SASRec(dim=8, blocks=1, heads=2)
    codes = ItemCodes.make(np.ones(NUM_ITEMS), {}, group)
    model = place(Retriever(spec, ItemTower(), NUM_ITEMS, {}, 5), group).eval()
    export_candidates(Forgetful.from_checkpoint(model_state(model), spec, ItemTower(), codes, 5, 7), 5, tmp_path / "bad.onnx")
    score = functools.partial(retrieval_scores, model, codes, Dot(), None)
    with pytest.raises(InputError, match=r"bad\.onnx differs"):
        check_retrieval(score, tmp_path / "bad.onnx", num_items=NUM_ITEMS, max_history=5, seed=1)
