"""What `recsys evaluate` writes, logs and prints of trained models."""

import io
import json
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from planted_data import planted_config
from rich.console import Console

from pipelines.evaluate import evaluate_run, flat_metrics
from pipelines.per_user import METRICS_FILE, PER_USER_FILE, PER_USER_RANKING_FILE
from pipelines.progress import TrainingProgress
from pipelines.show import show_metrics
from pipelines.train import train_ranker, train_retriever
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.dataset import Dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
RULES = {
    "ks": [5, 10], "category": "tags", "ece_bins": 4,
    "user_slices": {"busy": "history_length >= 6", "nobody": "history_length > 99"},
    "item_slices": {"rare": "train_count < 12"},
}  # fmt: skip
ACCURACY = {f"{name}@{k}" for name in ("HR", "NDCG", "MAP", "MRR", "Recall", "Precision") for k in (5, 10)}
OF_USERS = {"novelty@5", "serendipity@5", "ILD@5", "category_calibration@5"}
OF_GROUPS = {"popularity_lift@5"}
OF_ALL = {"coverage@5", "Gini@5"}
FLOORS = {"popularity", "item-knn", "transitions"}


@pytest.fixture(scope="module")
def judged(
    planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Workspace]:  # fmt: skip
    config = planted_config({"epochs": 2, "batch_size": 64}, evaluation=RULES)
    workspace = Workspace(tmp_path_factory.mktemp("judged"))
    with TrainingProgress(Console(file=io.StringIO()), None) as progress:
        for part, train in (("retriever", train_retriever), ("ranker", train_ranker)):
            train(config, planted, workspace.checkpoint(part), device=group, progress=progress)
    return evaluate_run(config, planted, workspace), workspace


def test_model_and_floors_have_the_same_metrics(judged: tuple[dict[str, Any], Workspace]) -> None:
    retrieval = judged[0]["retrieval"]
    for means in (retrieval["model"], *retrieval["floor"].values()):
        assert set(means) == ACCURACY | OF_USERS | OF_GROUPS | OF_ALL
    assert set(retrieval["floor"]) == FLOORS
    assert retrieval["floor"]["popularity"]["serendipity@5"] == 0
    assert retrieval["floor"]["popularity"]["popularity_lift@5"] == max(
        m["popularity_lift@5"] for m in retrieval["floor"].values()
    )


def test_slices(judged: tuple[dict[str, Any], Workspace]) -> None:
    result = judged[0]["retrieval"]
    slices = result["slices"]
    assert set(slices) == {"head", "torso", "tail", "cold", "warm", "busy", "nobody", "rare"}
    assert slices["nobody"] == {"users": 0, "model": {}, "floor": {floor: {} for floor in FLOORS}}
    assert 0 < slices["busy"]["users"] < result["users"]
    for name in ("head", "rare", "busy"):
        for means in (slices[name]["model"], *slices[name]["floor"].values()):
            assert set(means) == ACCURACY | (OF_USERS | OF_GROUPS if name == "busy" else set())
    # One target each: the slices of targets part the users, and the whole is their weighted mean.
    parts = [slices[name] for name in ("head", "torso", "tail")]
    assert sum(each["users"] for each in parts) == result["users"]
    whole = sum(each["users"] * each["model"].get("NDCG@10", 0) for each in parts) / result["users"]
    assert whole == pytest.approx(result["model"]["NDCG@10"])


def test_the_artefact_keeps_every_users_values(judged: tuple[dict[str, Any], Workspace]) -> None:
    result, workspace = judged
    manifest = read_manifest(workspace.metrics, "metrics", verify=True)
    assert set(manifest["files"]) == {METRICS_FILE, PER_USER_FILE, PER_USER_RANKING_FILE}
    assert json.loads((workspace.metrics / METRICS_FILE).read_text()) == result
    per_user = pl.read_parquet(workspace.metrics / PER_USER_FILE)
    assert set(per_user.columns) == {"user", "model"} | ACCURACY | OF_USERS
    assert set(per_user["model"]) == {"model", *FLOORS}
    mine = per_user.filter(model="model")
    assert mine["user"].is_unique().all()
    for name in ACCURACY | OF_USERS:
        assert not mine[name].is_nan().any(), name  # a user without a value has null
        assert mine[name].mean() == pytest.approx(result["retrieval"]["model"][name]), name


def test_tasks(judged: tuple[dict[str, Any], Workspace]) -> None:
    result, workspace = judged
    per_user = pl.read_parquet(workspace.metrics / PER_USER_RANKING_FILE)
    assert per_user.columns == ["user", "task", "rows", "AUC", "LogLoss"]
    assert per_user["AUC"].null_count() > 0
    assert not per_user["AUC"].is_nan().any()
    for task in ("click", "like"):
        found, own = result["ranking"]["tasks"][task], per_user.filter(task=task)
        assert {"AUC", "GAUC", "PR-AUC", "LogLoss", "NE", "ECE"} < set(found)
        rows = own["rows"].to_numpy()
        assert np.average(own["LogLoss"], weights=rows) == pytest.approx(found["LogLoss"])
        both = own.drop_nulls("AUC")
        assert np.average(both["AUC"], weights=both["rows"]) == pytest.approx(found["GAUC"])
        curve = found["reliability"]
        assert sum(each["rows"] for each in curve) == rows.sum()
        assert sum(each["rows"] * abs(each["rate"] - each["mean"]) for each in curve) / rows.sum() == pytest.approx(
            found["ECE"]
        )


def test_flat_names(judged: tuple[dict[str, Any], Workspace]) -> None:
    flat = flat_metrics(judged[0])
    assert all(isinstance(value, float) and value == value for value in flat.values())
    assert {
        "test/Gini@5",
        "test/PR-AUC/click",
        "floor/item-knn/ILD@5",
        "slice/tail/MAP@5",
        "slice/busy/popularity_lift@5",
    } < set(flat)
    assert not [name for name in flat if "nobody" in name or "reliability" in name]


def test_people_can_read_it(judged: tuple[dict[str, Any], Workspace]) -> None:
    said = io.StringIO()
    show_metrics(Console(file=said, width=140), judged[1].metrics, judged[0])
    text = said.getvalue()
    assert len(text.splitlines()) < 50
    model = judged[0]["retrieval"]["model"]
    assert f"beyond accuracy at 5: coverage {model['coverage@5']:.1%}, Gini {model['Gini@5']:.2f}, novelty" in text
    [nobody] = [line for line in text.splitlines() if "nobody" in line]
    assert nobody.count(" - ") == 3
    [busy] = [line for line in text.splitlines() if "busy" in line]
    assert f"{judged[0]['retrieval']['slices']['busy']['model']['NDCG@5']:.4f}" in busy
