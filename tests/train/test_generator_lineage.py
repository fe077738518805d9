"""After training: what a generator belongs to, and items that came since.

Shapes: B = users, L = history, G = candidates, J = items."""

from pathlib import Path
from typing import Any

import pytest
import torch
from generator_world import IDS, begun, generator_config, train
from planted_data import write_dataset
from safetensors.torch import load_file
from training_runs import Recorder

from pipelines import models
from pipelines.evaluate import evaluate_run
from pipelines.semantic_ids import build_ids, semantic_ids
from pipelines.train import train_retriever
from pipelines.workspace import Workspace, check_lineage
from recsys.artefact import read_manifest
from recsys.columns import FIRST_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


def tagged(folder: Path, items: int) -> Dataset:
    """Walks through the first twenty items; those with one remainder by five have the same tags."""
    tags = [[1]] * FIRST_ID + [[FIRST_ID + item % 5, FIRST_ID + 5 + item % 3] for item in range(items)]
    timelines = [[FIRST_ID + (user + step) % 20 for step in range(6)] for user in range(40)]
    return write_dataset(folder, timelines, num_items=items + FIRST_ID, features={"tags": ("item", tags)})


def test_items_that_came_after_training_are_scored_and_generated(group: torch.device, tmp_path: Path) -> None:
    ids = {**IDS, "vectors": {"kind": "content"}, "limits": {"max_collision_rate": 1.0, "min_entropy": 0, "min_usage": 0}}
    config = generator_config({"ids": ids, "begin": "random", "fit": {"epochs": 1}})
    workspace, old = Workspace(tmp_path), tagged(tmp_path / "old", 30)
    build_ids(config, old, workspace)
    train(config, old, workspace.checkpoint("generator"), workspace, group)
    grown = tagged(tmp_path / "grown", 34)
    extended, before = semantic_ids(config, grown, workspace), semantic_ids(config, old, workspace)
    assert extended.sizes == before.sizes, "spare codes of the last level are there for that"
    state = load_file(workspace.checkpoint("generator") / MODEL_FILE)
    graphs = [models.generation_graph(config, data, each, state) for data, each in ((old, before), (grown, extended))]
    new_J, old_J = torch.arange(32, 36), torch.arange(FIRST_ID, 32)
    history_BL, length_B = torch.tensor([[2, 3, 4], [5, 0, 0]]), torch.tensor([3, 1])
    for graph in graphs:  # old items have the same vectors as before, so that histories of them say the same
        torch.testing.assert_close(graph.hidden(history_BL, length_B), graphs[0].hidden(history_BL, length_B))
    score_BG = graphs[1].log_probs(history_BL, length_B, new_J.expand(2, -1)).sum(-1)
    assert torch.isfinite(score_BG).all()
    item_BK, log_prob_BK = graphs[1].best(history_BL, length_B, old_J.expand(2, -1), 10)
    assert sorted(item_BK[0][item_BK[0] > 0].tolist()) == new_J.tolist()
    torch.testing.assert_close(log_prob_BK[:, :4], score_BG.sort(1, descending=True).values)
    with_new = graphs[1].hidden(torch.tensor([[33, 34]]), torch.tensor([2]))
    assert torch.isfinite(with_new).all()
    all_BJ = torch.arange(FIRST_ID, 36).expand(2, -1)
    torch.testing.assert_close(graphs[1].log_probs(history_BL, length_B, all_BJ).sum(-1).exp().sum(1), torch.ones(2))


def test_a_generator_belongs_to_its_ids_its_settings_and_its_retriever(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config = generator_config({"fit": {"epochs": 1}, "ids": {**IDS, "vectors": {"kind": "content"}}})
    workspace = begun(config, planted, group, tmp_path)
    with pytest.raises(InputError, match="generator holds no checkpoint: make it with `recsys train`"):
        check_lineage(workspace, "generator", planted, config)
    train(config, planted, workspace.checkpoint("generator"), workspace, group)
    manifest = check_lineage(workspace, "generator", planted, config)
    ids, retriever = (
        read_manifest(folder, kind)["fingerprint"]
        for folder, kind in ((workspace.semantic_ids, "semantic_ids"), (workspace.checkpoint("retriever"), "checkpoint"))
    )
    assert (manifest["identity"]["ids"], manifest["identity"]["start"]) == (ids, retriever)

    def changed(**generator: Any) -> RunConfig:
        return generator_config({"fit": {"epochs": 1}, "ids": config.generator.ids.model_dump(mode="json"), **generator})

    for other in (
        changed(decoder={"blocks": 2}), changed(decoder={"softmax": "all"}), changed(own_row=False),
        changed(ids={**IDS, "spare": 9, "vectors": {"kind": "content"}}),
    ):  # fmt: skip
        with pytest.raises(InputError, match=r"generator was trained with other settings \(model\) than this config's"):
            check_lineage(workspace, "generator", planted, other)
    wide = config.model_copy(update={"seed": 2})
    build_ids(wide, planted, workspace, anew=True)
    with pytest.raises(InputError, match=r"with other ids than .*semantic_ids: run `recsys train --only generator` again"):
        evaluate_run(config, planted, workspace)
    build_ids(config, planted, workspace, anew=True)
    check_lineage(workspace, "generator", planted, config)
    train_retriever(wide, planted, workspace.checkpoint("retriever"), device=group, progress=Recorder())
    with pytest.raises(InputError, match=r"began from another retriever than .*: run `recsys train --only generator` again"):
        evaluate_run(config, planted, workspace)
    assert not workspace.metrics.exists()
