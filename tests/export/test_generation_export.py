"""The search inside ONNX answers as the trained generator does, and a bundle with it serves.

Shapes: B = requests, L = history, E = excluded items, K = items returned.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from planted_data import BLOCK_ITEMS, BLOCKS, planted_config
from safetensors.torch import load_file
from torch import Tensor, nn

from pipelines import export as pipeline
from pipelines import models
from pipelines.semantic_ids import build_ids, semantic_ids
from pipelines.train import train_generator, train_retriever
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.export import generation_parity
from recsys.export.generation_parity import check_generation
from recsys.export.graphs import export_candidates
from recsys.export.parity import TOLERANCE
from recsys.generate import beam
from recsys.generate.ids import NO_CODE, SemanticIds
from recsys.train.checkpoint import model_state
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE
from serving.bundle.bundle import Bundle
from serving.client import ask
from serving.recommend import recommend
from serving.run import running_service
from serving.schema import Query

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
BEAM, K = 6, 20
IDS = {
    "vectors": {"kind": "collaborative"}, "quantizer": {"kind": "balanced_kmeans", "levels": 2, "codes": 4},
    "limits": {"max_collision_rate": 1.0},
}  # fmt: skip
SMALL = {"kind": "sasrec", "dim": 16, "blocks": 1, "heads": 2, "dropout": 0.1}


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def generator_config(serving: dict[str, Any] | None = None, **change: Any) -> RunConfig:
    """Without tasks there is no ranker."""
    settings = {"batch_size": 32, "epochs": 1}
    return planted_config(
        settings, data={"events": {"path": "-", "user": "u", "item": "i"}},
        generator={"begin": "random", "encoder": SMALL, "fit": settings, "beam": BEAM, **change},
        serving={"num_candidates": K, "candidates": "generator", **(serving or {})},
    )  # fmt: skip


def block_ids(levels: int = 3) -> SemanticIds:
    """The block, then the place in it, in one code or two."""
    place = np.tile(np.arange(BLOCK_ITEMS), BLOCKS)
    columns = {2: [place], 3: [place // 4, place % 4], 4: [place // 6, place // 3 % 2, place % 3]}[levels]
    code_JT = np.stack([np.repeat(np.arange(BLOCKS), BLOCK_ITEMS), *columns], axis=1)
    code_IT = np.concatenate([np.full((FIRST_ID, levels), NO_CODE), code_JT]).astype(np.int32)
    return SemanticIds(code_IT, tuple(int(size) for size in code_JT.max(axis=0) + 1))


def exported(
    config: RunConfig, data: Dataset, ids: SemanticIds, group: torch.device, path: Path,
    graph_of: Callable[..., nn.Module] = models.generation_graph,
) -> nn.Module:  # fmt: skip
    """An untrained generator, sharp enough that its items' scores are apart, and its graph at `path`."""
    torch.manual_seed(0)
    model = place(models.generator(config, data, ids), group).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    export_candidates(graph_of(config, data, ids, model_state(model)), config.max_history, path)
    return model


def check(config: RunConfig, data: Dataset, ids: SemanticIds, model: nn.Module, path: Path) -> float:
    codes = models.generator_item_codes(config, data, ids)
    return check_generation(model, codes, path, max_history=config.max_history, seed=1).max_error


@pytest.mark.parametrize(
    ("levels", "change"),
    [
        (3, {}),
        (4, {"own_row": False, "decoder": {"softmax": "all", "blocks": 2}}),
        (2, {"encoder": {"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2}, "beam": 1}),
        (3, {"beam": 1000}),
    ],
    ids=str,
)
def test_every_kind_agrees_with_torch(
    planted: Dataset, group: torch.device, tmp_path: Path, levels: int, change: dict[str, Any]
) -> None:
    config, ids = generator_config(**change), block_ids(levels)
    model = exported(config, planted, ids, group, tmp_path / "g.onnx")
    assert check(config, planted, ids, model, tmp_path / "g.onnx") <= TOLERANCE


@pytest.mark.parametrize("max_history", [1, 2, 20])
def test_dimensions_stay_free(planted: Dataset, group: torch.device, tmp_path: Path, max_history: int) -> None:
    config, ids = generator_config().model_copy(update={"max_history": max_history}), block_ids()
    model = exported(config, planted, ids, group, tmp_path / "g.onnx")
    graph = models.generation_graph(config, planted, ids, model_state(model))
    run = onnxruntime.InferenceSession(tmp_path / "g.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch, length, excluded in ((1, 1, 1), (7, max_history, 47), (64, max(1, max_history // 2), 200)):
        history_BL = rng.integers(FIRST_ID, planted.num_items, (batch, length))
        length_B, exclude_BE = rng.integers(0, length + 1, batch), rng.integers(0, planted.num_items, (batch, excluded))
        item_BK, score_BK = run.run(None, {"history": history_BL, "length": length_B, "exclude": exclude_BE})
        with torch.no_grad():
            expected = graph(*map(torch.from_numpy, (history_BL, length_B, exclude_BE)))
        np.testing.assert_array_equal(item_BK, expected[0].numpy())
        np.testing.assert_allclose(score_BK, expected[1].numpy(), atol=1e-5)
        there_BK = np.isfinite(score_BK)
        assert not ((item_BK[:, :, None] == exclude_BE[:, None, :]).any(-1) & there_BK).any(), "an excluded item came back"
        left_B = [len(set(range(FIRST_ID, planted.num_items)) - set(exclude_E)) for exclude_E in exclude_BE.tolist()]
        assert there_BK.sum(axis=1).tolist() == [min(BEAM, left) for left in left_B]


def forgets_to_exclude(*args: Any) -> nn.Module:
    graph = models.generation_graph(*args)
    search = graph.best
    graph.best = lambda history_BL, length_B, exclude_BE, *rest: search(history_BL, length_B, exclude_BE * 0, *rest)
    return graph


def worst_first(*args: Any) -> nn.Module:
    graph = models.generation_graph(*args)
    search = graph.best
    graph.best = lambda *given: tuple(found.flip(1) for found in search(*given))
    return graph


def one_bias_off(*args: Any) -> nn.Module:
    graph = models.generation_graph(*args)
    with torch.no_grad():
        graph.decoder.bias[1][0] += 0.01
    return graph


@pytest.mark.parametrize("graph_of", [forgets_to_exclude, worst_first, one_bias_off])
def test_a_graph_that_differs_is_refused(
    planted: Dataset, group: torch.device, tmp_path: Path, graph_of: Callable[..., nn.Module]
) -> None:
    config, ids = generator_config(), block_ids()
    model = exported(config, planted, ids, group, tmp_path / "bad.onnx", graph_of)
    with pytest.raises(InputError, match=r"bad\.onnx differs from torch by .*: the bundle is not written"):
        check(config, planted, ids, model, tmp_path / "bad.onnx")


def test_beams_that_take_each_others_past_are_refused(
    planted: Dataset, group: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, ids = generator_config(), block_ids()
    with monkeypatch.context() as patch:

        def mixed(kept: Tensor, parent_Bb: Tensor) -> Tensor:
            return beam_taken(kept, parent_Bb.flip(1))

        beam_taken = beam._taken
        patch.setattr(beam, "_taken", mixed)
        model = exported(config, planted, ids, group, tmp_path / "bad.onnx")
    with pytest.raises(InputError, match=r"bad\.onnx differs from torch"):
        check(config, planted, ids, model, tmp_path / "bad.onnx")


def test_the_check_tells_items_apart_only_where_scores_are() -> None:
    item_BK, score_BK = np.array([[5, 6, 7]]), np.array([[-1.0, -2.0, -3.0]])
    error = generation_parity._search_error
    assert error(item_BK, score_BK, item_BK, score_BK - 5e-5) == pytest.approx(5e-5)
    assert error(np.array([[6, 5, 7]]), score_BK, item_BK, score_BK) == np.inf
    near_BK = np.array([[-1.0, -1.00001, -3.0]])
    assert error(np.array([[6, 5, 7]]), near_BK, item_BK, near_BK) == 0
    assert error(item_BK, np.array([[-1.0, -2.0, -np.inf]]), item_BK, score_BK) == np.inf


@pytest.fixture(scope="module")
def workspace(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    config, workspace = generator_config(ids=IDS), Workspace(tmp_path_factory.mktemp("generation"))
    train_retriever(config, planted, workspace.checkpoint("retriever"), device=group, progress=Silent())
    build_ids(config, planted, workspace)
    train_generator(
        config, planted, workspace.checkpoint("generator"), workspace=workspace, device=group, progress=Silent()
    )  # fmt: skip
    return workspace


def test_from_a_trained_generator_to_http(planted: Dataset, group: torch.device, workspace: Workspace) -> None:
    config = generator_config(ids=IDS)
    manifest = pipeline.export_run(config, planted, workspace, device=group)
    assert manifest["parity_max_error"]["generator"] <= TOLERANCE
    assert read_manifest(workspace.bundle, "bundle", verify=True)["model"]["candidates"] == "generation"
    bundle, state = Bundle.load(workspace.bundle), load_file(workspace.checkpoint("generator") / MODEL_FILE)
    graph = models.generation_graph(config, planted, semantic_ids(config, planted, workspace), state)
    user = 7
    timeline = torch.from_numpy(bundle.timeline_of(user).astype(np.int64))
    with torch.no_grad():
        item_1K, score_1K = graph(
            timeline[None, -config.max_history :], torch.tensor([min(len(timeline), config.max_history)]), timeline[None]
        )
    with running_service(workspace.bundle) as url:
        for k in (BEAM, K):
            answer = ask(url, user_id=bundle.users["user_id"][user].as_py(), k=k)
            rows = [planted.item_ids.index(item["item_id"]) for item in answer["items"]]
            assert rows[:BEAM] == item_1K[0].tolist()
            assert [item["retrieval_score"] for item in answer["items"][:BEAM]] == pytest.approx(
                score_1K[0].tolist(), abs=TOLERANCE
            )
            assert len(set(rows)) == k
            assert not set(rows) & set(timeline.tolist())
            assert answer["fallback"] == (None if k == BEAM else "retrieval")
    assert recommend(bundle, Query(user_id="u7", k=K)).model_dump()["items"] == answer["items"]


def test_the_retriever_finds_the_candidates_unless_told_otherwise(
    planted: Dataset, group: torch.device, workspace: Workspace
) -> None:
    manifest = pipeline.export_run(generator_config({"candidates": "retriever"}, ids=IDS), planted, workspace, device=group)
    assert manifest["model"]["candidates"] == "retrieval"
    assert not (workspace.bundle / pipeline.GENERATION_FILE).exists()
    assert Bundle.load(workspace.bundle).generation is None


def test_a_generator_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"serving\.candidates is generator, and this config trains none: add a `generator`"):
        planted_config(serving={"candidates": "generator"})
