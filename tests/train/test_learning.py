"""The models learn what was planted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config
from safetensors.torch import load_file

from pipelines.models import ranking_graph, retrieval_graph
from pipelines.train import train_ranker, train_retriever
from recsys import evaluate
from recsys.columns import TEST
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


SLOW = {
    "batch_size": 16,
    "epochs": 20,
    "patience": 60,
    "warmup_steps": 10,
    "embedding_learning_rate": 0.1,
    "learning_rate": 0.005,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"loss": {"kind": "sampled_softmax"}, "negatives": {"kind": "uniform", "count": 64}},
        {"loss": {"kind": "gbce"}, "negatives": {"kind": "uniform", "count": 8}, "fit": {**SLOW, "epochs": 60}},
        {"loss": {"kind": "bpr"}, "negatives": {"kind": "popularity", "count": 32}},
        {"encoder": {"kind": "hstu", "dim": 32, "blocks": 1, "heads": 2}, "similarity": {"kind": "cosine"}},
        {"encoder": {"kind": "mean_pooling", "dim": 32}},
        {"matryoshka": {"dims": [8, 16]}},
    ],
    ids=str,
)
def test_the_retriever_learns_the_next_item(
    planted: Dataset, group: torch.device, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = planted_config(SLOW)
    config = config.model_copy(
        update={"retriever": type(config.retriever).model_validate(config.retriever.model_dump() | change)}
    )
    manifest = train_retriever(config, planted, tmp_path / "retriever", device=group, progress=Silent())
    judged = evaluate.judged_users(planted, TEST, filter_seen=True)
    graph = retrieval_graph(config, planted, load_file(tmp_path / "retriever" / MODEL_FILE))
    item_UK = evaluate.recommend(graph, judged, k=10, max_history=config.max_history, filter_seen=True)
    ndcg = evaluate.retrieval_metrics(item_UK, judged, [10], planted.num_items)[0]["NDCG@10"]
    floors = {
        name: evaluate.retrieval_metrics(lists, judged, [10], planted.num_items)[0]["NDCG@10"]
        for name, lists in evaluate.floors(planted, judged, k=10, filter_seen=True)
    }
    assert ndcg > 3 * floors["popularity"]
    slow = "mean_pooling" in str(change) or "gbce" in str(change)  # one cannot tell the last item, the other needs more epochs
    assert manifest["best"] > (0.2 if slow else 0.8)


def test_the_ranker_learns_blocks_and_leaves_noise_alone(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = planted_config({"epochs": 16, "batch_size": 64})
    train_ranker(config, planted, tmp_path / "ranker", device=group, progress=Silent())
    graph = ranking_graph(config, planted, load_file(tmp_path / "ranker" / MODEL_FILE))
    loader = ExampleLoader(planted, tasks=list(config.tasks), split=TEST, max_history=5, batch_size=512, seed=1)
    metrics = evaluate.ranking_metrics(evaluate.predict(graph, loader), list(config.tasks), ece_bins=10, seed=1, intervals=True)
    assert metrics["AUC/click"] > 0.8
    assert metrics["AUC_low/click"] > metrics["AUC_high/like"] > metrics["AUC_low/like"]  # likes are a coin
    assert metrics["AUC_low/like"] < 0.5 < metrics["AUC_high/like"]
