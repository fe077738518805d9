"""The models learn what was planted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config
from safetensors.torch import load_file

from pipelines.train import ranking_graph, retrieval_graph, train_ranker, train_retriever
from recsys import evaluate
from recsys.columns import TEST
from recsys.dataset import Dataset
from recsys.loader import ExampleLoader
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


@pytest.mark.parametrize("loss", [{"kind": "full_softmax"}, {"kind": "sampled_softmax", "num_negatives": 64}])
def test_the_retriever_learns_the_next_item(
    planted: Dataset, group: torch.device, tmp_path: Path, loss: dict[str, Any]
) -> None:
    config = planted_config({"epochs": 12})
    config = config.model_copy(
        update={"retriever": type(config.retriever).model_validate(config.retriever.model_dump() | {"loss": loss})}
    )
    manifest = train_retriever(config, planted, tmp_path / "retriever", device=group, progress=Silent())
    judged = evaluate.judged_users(planted, TEST, filter_seen=True)
    graph = retrieval_graph(config, load_file(tmp_path / "retriever" / MODEL_FILE))
    item_UK = evaluate.recommend(graph, judged.history, k=10, max_history=config.max_history, filter_seen=True)
    ndcg = evaluate.retrieval_metrics(item_UK, judged, [10], planted.num_items)[0]["NDCG@10"]
    floors = {
        name: evaluate.retrieval_metrics(lists, judged, [10], planted.num_items)[0]["NDCG@10"]
        for name, lists in evaluate.floors(planted, judged, k=10, filter_seen=True)
    }
    assert ndcg > 0.8
    assert ndcg > 3 * floors["popularity"]
    assert manifest["best"] > 0.8


def test_the_ranker_learns_blocks_and_leaves_noise_alone(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = planted_config({"epochs": 12, "batch_size": 64})
    train_ranker(config, planted, tmp_path / "ranker", device=group, progress=Silent())
    graph = ranking_graph(config, planted, load_file(tmp_path / "ranker" / MODEL_FILE))
    loader = ExampleLoader(planted, tasks=list(config.tasks), split=TEST, max_history=5, batch_size=512, seed=1)
    metrics = evaluate.ranking_metrics(evaluate.predict(graph, loader), list(config.tasks), ece_bins=10, seed=1, intervals=True)
    assert metrics["AUC/click"] > 0.8
    assert metrics["AUC_low/click"] > metrics["AUC_high/like"] > metrics["AUC_low/like"]  # likes are a coin
    assert metrics["AUC_low/like"] < 0.5 < metrics["AUC_high/like"]
