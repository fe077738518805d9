"""Every kind of retriever from training to a served answer: what is judged, exported and served is one and the same model."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from planted_data import planted_config
from safetensors.torch import load_file

from pipelines import models
from pipelines.evaluate import evaluate_run
from pipelines.export import export_run
from pipelines.train import train_retriever
from pipelines.workspace import Workspace
from recsys.columns import FIRST_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.train.loop import MODEL_FILE
from serving.bundle.bundle import Bundle
from serving.recommend import recommend
from serving.schema import Query

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
HSTU = {"kind": "hstu", "dim": 16, "blocks": 1, "heads": 2}
MEAN = {"kind": "mean_pooling", "dim": 16}
COSINE, TOWER, NESTED = {"kind": "cosine"}, {"features": ["genre", "tags"], "id_dropout": 0.3}, {"dims": [4, 8]}
SAMPLED = {"loss": {"kind": "sampled_softmax"}, "negatives": {"kind": "uniform", "count": 16}}
CHANGES: list[dict[str, Any]] = [
    {},
    {"similarity": COSINE, "tower": TOWER, "matryoshka": NESTED, **SAMPLED},
    {"encoder": HSTU, "tower": TOWER, "matryoshka": {"dims": [8, 16]}},
    {"encoder": HSTU, "similarity": COSINE, "loss": {"kind": "gbce"}},
    {"encoder": MEAN, "similarity": COSINE, "tower": TOWER, "loss": {"kind": "bpr"}},
    {"encoder": MEAN, "matryoshka": NESTED, "denoise": {"kind": "truncated"}},
]
NAMES = [
    "plain",
    "cosine+tower+nested+sampled",
    "hstu+tower+nested",
    "hstu+cosine+gbce",
    "mean+cosine+tower+bpr",
    "mean+nested",
]


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def retriever_only(change: dict[str, Any]) -> RunConfig:
    """Without tasks there is no ranker."""
    data = {
        "events": {"path": "-", "user": "u", "item": "i"},
        "items": {"path": "-", "id": "i", "features": {"genre": "g", "tags": "t"}},
    }
    base = planted_config({"epochs": 2, "batch_size": 32}).model_dump(mode="json")
    retriever = {**base["retriever"], **change}
    dim = 8 if "matryoshka" in change else None
    return RunConfig.model_validate(
        base | {"data": data, "retriever": retriever, "serving": {"num_candidates": 20, "dim": dim}}
    )


@pytest.fixture(scope="module", params=CHANGES, ids=NAMES)
def run(
    request: pytest.FixtureRequest, planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, Workspace]:
    config, workspace = retriever_only(request.param), Workspace(tmp_path_factory.mktemp("run"))
    train_retriever(config, planted, workspace.checkpoint("retriever"), device=group, progress=Silent())
    evaluate_run(config, planted, workspace)
    export_run(config, planted, workspace, device=group)
    return config, workspace


def test_what_is_served_is_what_was_trained(run: tuple[RunConfig, Workspace], planted: Dataset) -> None:
    config, workspace = run
    bundle = Bundle.load(workspace.bundle)
    graph = models.retrieval_graph(config, planted, load_file(workspace.checkpoint("retriever") / MODEL_FILE))
    assert bundle.reads_time == config.retriever.encoder.reads_time
    assert graph.scored_ID.shape[1] == (8 if config.retriever.matryoshka else 16)
    for user in (FIRST_ID, FIRST_ID + 7, planted.num_users - 1):
        answer = recommend(bundle, Query(user_id=planted.user_ids[user], k=10, time_ms=10**6))
        history_L, time_L = bundle.timeline_of(user), bundle.times_of(user)
        recent_L, recent_time = history_L[-config.max_history :].astype(np.int64), time_L[-config.max_history :]
        with torch.no_grad():
            item_BK, score_BK = graph(
                torch.from_numpy(recent_L)[None], torch.tensor([len(recent_L)]),
                torch.from_numpy(history_L.astype(np.int64))[None],
                torch.from_numpy(np.append(recent_time, 10**6))[None],
            )  # fmt: skip
        np.testing.assert_allclose([item.score for item in answer.items], score_BK[0, :10], atol=1e-4)
        given = {planted.item_ids[item]: float(score) for item, score in zip(item_BK[0], score_BK[0], strict=True)}
        assert all(given[item.item_id] == pytest.approx(item.score, abs=1e-4) for item in answer.items)


def test_the_time_of_a_request_counts_where_it_is_read(run: tuple[RunConfig, Workspace], planted: Dataset) -> None:
    config, workspace = run
    bundle = Bundle.load(workspace.bundle)
    answers = [recommend(bundle, Query(user_id=planted.user_ids[FIRST_ID], time_ms=time_ms)).items for time_ms in (10, 10**12)]
    scores = [{item.item_id: item.score for item in answer} for answer in answers]
    assert (scores[0] != scores[1]) == config.retriever.encoder.reads_time


def test_each_width_is_judged(run: tuple[RunConfig, Workspace], planted: Dataset) -> None:
    config, workspace = run
    result = json.loads((workspace.metrics / "metrics.json").read_text())["retrieval"]
    nested = config.retriever.matryoshka
    wanted = {f"width {dim}" for dim in (*nested.dims, 16) if dim != 8} if nested else set()
    assert set(result.get("widths", {})) == wanted
