"""When two runs agree, by hand-worked numbers."""

from pathlib import Path

import polars as pl
import pytest

from pipelines.reproduction.agreement import Line, exactly, judged, lines, within_intervals


def test_costs_and_curves_are_not_judged() -> None:
    found = judged(
        {"test/NDCG@10": 0.1, "floor/popularity/NDCG@10": 0.1, "slice/cold/NDCG@10": 0.1, "cost/train_s": 9.0, "loss": 1.0}
    )
    assert list(found) == ["test/NDCG@10", "floor/popularity/NDCG@10", "slice/cold/NDCG@10"]


def test_only_what_both_have_is_put_side_by_side_and_a_difference_of_the_tolerance_agrees() -> None:
    found = lines(
        {"test/a": 0.5, "test/b": 0.5, "test/c": 1.0},
        {"test/a": 0.75, "test/b": 0.7501, "test/d": 1.0},
        {"test/a": 0.25, "test/b": 0.25},
    )
    assert [(line.metric, line.agrees) for line in found] == [("test/a", True), ("test/b", False)]


def test_what_is_no_number_agrees_with_nothing_but_itself() -> None:
    nan = float("nan")
    assert Line("m", nan, nan, 0.1).agrees
    assert not Line("m", 0.5, nan, 0.1).agrees
    assert not Line("m", nan, 0.5, 0.1).agrees
    assert Line("m", nan, 0.5, None).agrees is None


def test_on_the_same_machine_only_rounding_is_let_pass() -> None:
    assert exactly({"test/a": 0.5, "test/b": 2000.0}) == {"test/a": 1e-9, "test/b": pytest.approx(2e-6)}


def test_elsewhere_half_of_the_interval_over_users_is_let_pass_and_floors_stay_exact(tmp_path: Path) -> None:
    """Four users with 0, 0, 1, 1: the standard deviation is the root of 1/3, of the mean that of 1/12."""
    path = tmp_path / "per_user.parquet"
    model = [{"user": user, "model": "model", "NDCG@10": value} for user, value in enumerate((0.0, 0.0, 1.0, 1.0))]
    floor = [{"user": user, "model": "popularity", "NDCG@10": 9.0 * user} for user in range(4)]
    gone = [{"user": 4, "model": "model", "NDCG@10": None}]  # the metric does not exist for this one
    pl.DataFrame(model + floor + gone).write_parquet(path)
    stored = {
        "test/NDCG@10": 0.5, "floor/popularity/NDCG@10": 0.5, "test/AUC/like": 0.7, "test/AUC_low/like": 0.66,
        "test/AUC_high/like": 0.72, "test/coverage@10": 0.3,
    }  # fmt: skip
    assert within_intervals(stored, tmp_path) == {
        "test/NDCG@10": pytest.approx(1.959964 * (1 / 12) ** 0.5),
        "floor/popularity/NDCG@10": 1e-9,
        "test/AUC/like": pytest.approx(0.03),
        "test/AUC_low/like": None,
        "test/AUC_high/like": None,
        "test/coverage@10": None,
    }
    assert within_intervals(stored, None)["test/NDCG@10"] is None
