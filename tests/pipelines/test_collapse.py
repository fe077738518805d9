"""Vectors that collapse are seen at every validation and in the evaluation, and somebody is told."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config
from rich.console import Console

from pipelines.evaluate import evaluate_run, flat_metrics
from pipelines.progress import TrainingProgress
from pipelines.show import show_metrics
from pipelines.train import train_retriever
from pipelines.workspace import Workspace
from recsys import track
from recsys.columns import VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.evaluate import embedding_health, health, judged_users
from recsys.models.mean_pooling import MeanPooling
from recsys.models.retriever import RetrievalGraph
from recsys.train.loop import HISTORY_FILE

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
HEALTH = {"rankme", "rankme_share", "alignment", "uniformity_users", "uniformity_items"}


def health_of(data: Dataset, item_ID: torch.Tensor, **sides: Any) -> dict[str, float]:
    torch.manual_seed(0)
    graph = RetrievalGraph(MeanPooling(dim=item_ID.shape[1]), 6, item_ID, 10, **sides).eval()
    return embedding_health(graph, judged_users(data, VALID, filter_seen=True), max_history=6)


def test_planted_collapse_is_measured(planted: Dataset) -> None:
    random_ID = torch.randn(planted.num_items, 8, generator=torch.Generator().manual_seed(0))
    line_ID = torch.linspace(1, 2, planted.num_items)[:, None] * torch.ones(8)
    healthy, collapsed = health_of(planted, random_ID), health_of(planted, line_ID)
    assert set(healthy) == HEALTH
    assert collapsed["rankme"] == pytest.approx(1, abs=1e-2)
    assert collapsed["rankme_share"] == pytest.approx(collapsed["rankme"] / 8)
    assert collapsed["uniformity_items"] == pytest.approx(0, abs=1e-5)
    assert healthy["rankme"] > 7
    assert healthy["uniformity_items"] < -1


def test_what_is_scored_is_what_is_judged(planted: Dataset) -> None:
    item_ID = torch.randn(planted.num_items, 8, generator=torch.Generator().manual_seed(0))
    item_ID[:, 4:] = 0
    assert health_of(planted, item_ID)["rankme_share"] < 0.51
    assert health_of(planted, item_ID, score_dim=4)["rankme_share"] > 0.9


def test_the_sample_is_the_same_every_time(planted: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HEALTH_ITEMS", 20)
    monkeypatch.setattr(health, "HEALTH_PAIRS", 15)
    item_ID = torch.randn(planted.num_items, 30, generator=torch.Generator().manual_seed(0))
    first = health_of(planted, item_ID)
    assert health_of(planted, item_ID) == first
    assert first["rankme_share"] == pytest.approx(first["rankme"] / 20)  # fewer items than numbers


def test_every_validation_and_the_evaluation_have_it(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = planted_config({"epochs": 2, "batch_size": 32})
    config = RunConfig.model_validate(
        config.model_dump(mode="json") | {"data": {"events": {"path": "-", "user": "u", "item": "i"}}}
    )
    said = io.StringIO()
    workspace = Workspace(tmp_path)
    with TrainingProgress(Console(file=said, width=200), None) as progress:
        train_retriever(config, planted, workspace.checkpoint("retriever"), device=group, progress=progress)
    history = json.loads((workspace.checkpoint("retriever") / HISTORY_FILE).read_text())
    assert len(history) == 2
    assert all({f"valid/{name}" for name in HEALTH} <= set(entry) for entry in history)
    assert "alarm" not in said.getvalue()
    result = evaluate_run(config, planted, workspace)
    assert {f"test/{name}" for name in HEALTH} <= set(flat_metrics(result))
    show_metrics(Console(file=said, width=200), workspace.metrics, result)
    assert f"RankMe {result['retrieval']['health']['rankme']:.1f} of 16, alignment " in said.getvalue()


def test_somebody_is_told(tmp_path: Path) -> None:
    said, uri = io.StringIO(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    with (
        track.start_run("e", "r", data="d", uri=uri) as run,
        TrainingProgress(Console(file=said, width=300), run) as progress,
    ):
        for epoch, (effective, limit) in enumerate([(60, 64), (31, 64), (29, 64)], start=1):
            metrics = {"valid/NDCG@10": 0.1, "valid/rankme": effective, "valid/rankme_share": effective / limit}
            progress.validated("retriever", step=epoch, epoch=epoch, metrics=metrics, best=True)
            assert ("alarm" in said.getvalue()) == (epoch == 3)
    alarm = "the item vectors use 29.0 of 64 directions (RankMe) and used 60.0 before, they are collapsing"
    assert f"alarm: retriever: {alarm}: lower retriever.fit.embedding_learning_rate" in said.getvalue()
    assert track.get_run(run.run_id, uri=uri).tags["retriever/alarm"] == alarm
