"""How the debiasing experiments judge and what they are given."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from benchmarks import coat
from benchmarks.debias import moved
from benchmarks.judged import METRICS, Judge
from benchmarks.table import markdown
from recsys.errors import InputError


def judge_of(truth: list[float], user: list[int], times: list[list[int]]) -> Judge:
    return Judge(np.array(truth, float), np.array(user), np.array(times))


def test_mse_counts_the_rows_of_a_user_drawn_twice_twice() -> None:
    judge = judge_of([1, 0, 1], [0, 0, 1], [[1, 1], [2, 0], [0, 2]])
    value, drawn_R = METRICS["MSE"](judge, np.array([1.0, 0.5, 0.0]))
    assert value == pytest.approx(1.25 / 3)
    assert drawn_R.tolist() == pytest.approx([1.25 / 3, 0.125, 1])


def test_ndcg_by_hand_leaves_out_users_without_a_positive() -> None:
    """User 0: the one positive of three stands second, 1 / log2(3); user 1 has none."""
    judge = judge_of([0, 1, 0, 0, 0], [0, 0, 0, 1, 1], [[1, 1], [2, 0]])
    value, drawn_R = METRICS["NDCG@5"](judge, np.array([0.9, 0.8, 0.1, 0.5, 0.4]))
    assert value == pytest.approx(0.630930, abs=1e-6)
    assert drawn_R.tolist() == pytest.approx([0.630930, 0.630930], abs=1e-6)


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(1)
    truth_N, score_N, user_N = rng.random(50), rng.random(50), np.arange(50) % 5
    value, drawn_R = METRICS["rank correlation"](Judge(truth_N, user_N, np.ones((1, 5), int)), score_N)
    assert value == pytest.approx(spearmanr(truth_N, score_N).statistic, abs=1e-9)
    assert drawn_R[0] == pytest.approx(value)


def test_the_moved_level_is_that_of_the_other_share() -> None:
    assert moved(np.array([0.5]), 0.5, 0.2).tolist() == pytest.approx([0.2])
    assert moved(np.array([0.3, 0.9]), 0.4, 0.4).tolist() == pytest.approx([0.3, 0.9])


def test_what_estimates_a_propensity_judges_nobody(tmp_path: Path) -> None:
    """Train and validation are the self-selected ratings, the test and the slice of it together the random ones."""
    source, rng = tmp_path / "coat", np.random.default_rng(2)
    source.mkdir()
    for name, rows in (("train", 100), ("test", 200)):
        item = np.arange(rows) + (1000 if name == "test" else 0)
        frame = pl.DataFrame({"user": np.arange(rows) % 7, "item": item, "rating": rng.integers(1, 6, rows)})
        frame.write_parquet(source / f"{name}.parquet")
    pl.DataFrame({"00_age:old": [0, 1], "01_age:young": [1, 0], "02_sex:f": [1, 1], "03_sex:m": [0, 0]}).write_parquet(
        source / "user_features.parquet"
    )
    pl.DataFrame({"00_color:red": [1]}).write_parquet(source / "item_features.parquet")
    share = coat.write(source, tmp_path / "raw")
    train, valid, test = (pl.read_parquet(tmp_path / f"raw/log/{name}.parquet") for name in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (80, 20, 190)
    assert sorted([*train["item_id"], *valid["item_id"]]) == list(range(100))
    given = pl.read_parquet(source / "test.parquet")
    held = given.filter(~pl.col("item").is_in(test["item_id"].to_list()))
    assert len(held) == 10
    assert share == pytest.approx((held["rating"] >= 3).mean())
    users = pl.read_parquet(tmp_path / "raw/users.parquet").rows(named=True)
    assert [(row["user_id"], row["age"], row["sex"]) for row in users] == [(0, "young", "f"), (1, "old", "f")]


def test_names_what_the_folder_lacks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no train"):
        coat.write(tmp_path, tmp_path / "raw")


def test_a_table_in_markdown() -> None:
    assert markdown(["way", "AUC"], [["naive", "0.5"]]) == "| way   | AUC |\n| ----- | --: |\n| naive | 0.5 |"
