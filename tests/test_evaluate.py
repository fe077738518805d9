"""Shapes: U = users judged, K = list length, I = item rows, X = examples, T = tasks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_data import planted_config

from pipelines.train import train_ranker
from recsys import evaluate
from recsys.columns import FIRST_ID, SPLIT, TEST, TRAIN, VALID, label
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import (
    Judged,
    Predictions,
    judged_users,
    per_user_ranking,
    ranking_metrics,
    reliability_curves,
    training_timelines,
)
from recsys.jagged import Jagged
from recsys.models.hstu import HSTU
from recsys.models.retriever import RetrievalGraph
from recsys.models.sasrec import SASRec
from recsys.train.loop import HISTORY_FILE

Make = Callable[..., Dataset]
NUM_ITEMS = 12


def lists(jagged: Jagged) -> list[list[int]]:
    return [part.tolist() for part in np.split(jagged.item_E, jagged.offset_U1[1:-1])]


class TestTimeSplit:
    TIMELINES = ([2, 3, 4, 5, 6], [2, 3], [7, 8, 7, 9], [5, 5], [4, 4, 6])
    SPLITS = (
        [TRAIN, TRAIN, VALID, TEST, TEST],
        [TRAIN, TRAIN],  # nothing to judge
        [TRAIN, VALID, TEST, TEST],  # 7 is a repeat of the history
        [TEST, TEST],  # a user without history; 5 twice inside the split is no repeat of the history
        [TRAIN, VALID, TEST],  # 4 is a repeat in validation, 6 new in test
    )

    @pytest.fixture
    def data(self, make_dataset: Make) -> Dataset:
        return make_dataset(self.TIMELINES, splits=self.SPLITS, num_items=NUM_ITEMS)

    def test_history_is_all_before_the_split_and_targets_all_in_it(self, data: Dataset) -> None:
        judged = judged_users(data, TEST, filter_seen=False)
        assert (judged.user_U - FIRST_ID).tolist() == [0, 2, 3, 4]
        assert lists(judged.history) == [[2, 3, 4], [7, 8], [], [4, 4]]
        assert lists(judged.relevant) == [[5, 6], [7, 9], [5, 5], [6]]

    def test_repeats_of_the_history_are_no_targets(self, data: Dataset) -> None:
        judged = judged_users(data, TEST, filter_seen=True)
        assert (judged.user_U - FIRST_ID).tolist() == [0, 2, 3, 4]
        assert lists(judged.relevant) == [[5, 6], [9], [5, 5], [6]]

    def test_a_user_with_repeats_alone_is_left_out(self, data: Dataset) -> None:
        judged = judged_users(data, VALID, filter_seen=True)
        assert (judged.user_U - FIRST_ID).tolist() == [0, 2]
        assert lists(judged.history) == [[2, 3], [7]]
        assert lists(judged.relevant) == [[4], [8]]
        assert (judged_users(data, VALID, filter_seen=False).user_U - FIRST_ID).tolist() == [0, 2, 4]

    def test_training_timelines_hold_training_alone(self, data: Dataset) -> None:
        assert lists(training_timelines(data)) == [[], [], [2, 3], [2, 3], [7], [], [4]]


def test_leave_one_out(make_dataset: Make) -> None:
    data = make_dataset([[2, 3, 4, 5], [6, 7], [8, 9, 8]], num_items=NUM_ITEMS)
    test, valid = (judged_users(data, split, filter_seen=False) for split in (TEST, VALID))
    assert (test.user_U - FIRST_ID).tolist() == (valid.user_U - FIRST_ID).tolist() == [0, 2]
    assert (lists(test.history), lists(test.relevant)) == ([[2, 3, 4], [8, 9]], [[5], [8]])
    assert (lists(valid.history), lists(valid.relevant)) == ([[2, 3], [8]], [[4], [9]])
    assert (judged_users(data, TEST, filter_seen=True).user_U - FIRST_ID).tolist() == [0]


def test_nobody_to_judge(make_dataset: Make) -> None:
    judged = judged_users(make_dataset([[2, 3], [4]], num_items=NUM_ITEMS), TEST, filter_seen=True)
    assert len(judged.user_U) == len(judged.history) == len(judged.relevant) == 0


def judged(histories: list[list[int]]) -> Judged:
    """These histories, an hour between two events."""
    times = [range(0, 3_600_000 * (len(history) + 1), 3_600_000) for history in histories]
    lists = Jagged.from_lists(histories)
    return Judged(np.arange(len(lists)), lists, lists, Jagged.from_lists(times))


@pytest.mark.parametrize("spec", [SASRec(dim=8, blocks=1, heads=2), HSTU(dim=8, blocks=2, heads=2)], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 256])
@torch.no_grad()
def test_recommend_equals_brute_force(spec: SASRec | HSTU, filter_seen: bool, batch: int) -> None:
    torch.manual_seed(0)
    graph = RetrievalGraph(spec, 3, torch.randn(NUM_ITEMS, 8), 5).eval()
    rng = np.random.default_rng(0)
    histories = [rng.integers(FIRST_ID, NUM_ITEMS, length).tolist() for length in (0, 1, 3, 8, 2, 0, 5)]
    found_UK = evaluate.recommend(graph, judged(histories), k=NUM_ITEMS, max_history=3, filter_seen=filter_seen, batch=batch)
    for history, item_K in zip(histories, found_UK, strict=True):
        recent = history[-3:]
        time_M = torch.arange(len(history) + 1)[-len(recent) - 1 :] * 3_600_000
        state_D = graph.encoder(graph.item_ID[torch.tensor(recent, dtype=torch.int64)], torch.tensor([len(recent)]), time_M)[-1]
        score_I = (graph.item_ID @ state_D).tolist()
        allowed = [item for item in range(FIRST_ID, NUM_ITEMS) if not (filter_seen and item in history)]
        expected = sorted(allowed, key=lambda item: -score_I[item])
        assert item_K.tolist() == expected + [0] * (NUM_ITEMS - len(expected))


def test_scores_that_are_not_finite_are_refused() -> None:
    graph = RetrievalGraph(SASRec(dim=8, blocks=1, heads=2), 3, torch.full((NUM_ITEMS, 8), float("nan")), 5).eval()
    with pytest.raises(InputError, match="not finite for 2 users"):
        evaluate.recommend(graph, judged([[2], [3, 4]]), k=3, max_history=3, filter_seen=True)


def test_retrieval_metrics_and_floors(planted: Dataset) -> None:
    judged = judged_users(planted, TEST, filter_seen=True)
    floors = dict(evaluate.floors(planted, judged, k=10, filter_seen=True))
    assert list(floors) == ["popularity", "item-knn", "transitions"]
    values = {}
    for name, item_UK in floors.items():
        assert item_UK.shape == (len(judged.user_U), 10)
        means, per_user = evaluate.retrieval_metrics(item_UK, judged, [5, 10], planted.num_items)
        assert set(means) == {f"{m}@{k}" for m in ("HR", "NDCG", "MAP", "MRR", "Recall", "Precision") for k in (5, 10)} | {
            "coverage@5"
        }
        assert all(len(value_U) == len(judged.user_U) for value_U in per_user.values())
        assert means["HR@10"] == pytest.approx(per_user["HR@10"].mean())
        values[name] = means["NDCG@10"]
    assert values["transitions"] > values["item-knn"] > values["popularity"]  # what is planted is a transition


class TestRankingMetrics:
    TASKS = ("click", "one_class", "nothing")

    @pytest.fixture
    def predictions(self) -> Predictions:
        nan = float("nan")
        label_XT = np.array([[1, 0, nan], [0, 0, nan], [1, nan, nan], [0, 0, nan]], np.float32)
        probability_XT = np.array([[0.9, 0.2, 0.5], [0.6, 0.2, 0.5], [0.4, 0.9, 0.5], [0.1, 0.2, 0.5]], np.float32)
        return Predictions(np.array([2, 2, 3, 3]), probability_XT, label_XT)

    def test_hand_worked_numbers(self, predictions: Predictions) -> None:
        found = ranking_metrics(predictions, self.TASKS, ece_bins=10, seed=0, intervals=True)
        assert found["AUC/click"] == pytest.approx(3 / 4)  # of the pairs only (.4, .6) is the wrong way round
        assert found["GAUC/click"] == 1
        assert found["LogLoss/click"] == pytest.approx(-(2 * np.log(0.9) + 2 * np.log(0.4)) / 4)
        assert found["AUC_low/click"] <= found["AUC/click"] <= found["AUC_high/click"]
        assert found["LogLoss/one_class"] == pytest.approx(-np.log(0.8))  # the row without a label does not count
        assert found["ECE/one_class"] == pytest.approx(0.2)

    def test_each_users_own_values(self, predictions: Predictions) -> None:
        found = per_user_ranking(predictions, (*self.TASKS[:2], "nothing"), numbers=["one_class"])
        assert found["task"].to_list() == ["click", "click"]  # a number has neither, and without labels there is no row
        assert found["user"].to_list() == [2, 3]
        assert found["rows"].to_list() == [2, 2]
        assert found["AUC"].to_list() == [1, 1]
        assert found["LogLoss"].to_list() == pytest.approx([-(np.log(0.9) + np.log(0.4)) / 2] * 2)
        one_class = per_user_ranking(predictions, self.TASKS).filter(task="one_class")
        assert one_class.select("user", "rows", "AUC").rows() == [(2, 2, None), (3, 1, None)]

    def test_reliability_of_the_tasks_with_labels(self, predictions: Predictions) -> None:
        found = reliability_curves(predictions, self.TASKS, bins=2)
        assert list(found) == ["click", "one_class"]
        assert found["click"][1] == {"low": 0.5, "high": 1, "mean": pytest.approx(0.75), "rate": 0.5, "rows": 2}
        assert list(reliability_curves(predictions, self.TASKS, bins=2, numbers=["click"])) == ["one_class"]

    @pytest.mark.parametrize("intervals", [True, False])
    def test_what_does_not_exist_is_nan(self, predictions: Predictions, intervals: bool) -> None:
        found = ranking_metrics(predictions, self.TASKS, ece_bins=10, seed=0, intervals=intervals)
        names = ["AUC", "GAUC", "PR-AUC", "LogLoss", "NE", "ECE", *(["AUC_low", "AUC_high"] if intervals else [])]
        assert set(found) == {f"{name}/{task}" for name in names for task in self.TASKS}
        missing = {name for name, value in found.items() if np.isnan(value)}
        rank_based = [name for name in names if "AUC" in name or name == "NE"]
        assert missing == {f"{name}/one_class" for name in rank_based} | {f"{name}/nothing" for name in names}


@pytest.mark.filterwarnings("ignore:Please use DTensor")
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_task_with_one_class_or_no_label_in_validation_does_not_stop_training(
    value: float, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    data = Dataset(planted.folder)
    examples = dict(data.examples)
    examples[label("like")] = np.where(examples[SPLIT] == VALID, np.float32(value), examples[label("like")])
    data.__dict__["examples"] = examples
    train_ranker(planted_config({"epochs": 2}), data, tmp_path / "ranker", device=group, progress=Silent())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for name in (HISTORY_FILE, "manifest.json"):
        json.loads((tmp_path / "ranker" / name).read_text(), parse_constant=refuse)
    history = json.loads((tmp_path / "ranker" / HISTORY_FILE).read_text())
    assert all("valid/AUC/click" in entry and "valid/AUC/like" not in entry for entry in history)


class Silent:
    def step(self, job: str, **_: object) -> None: ...
    def validated(self, job: str, **_: object) -> None: ...
