"""What the off-policy experiments take for the truth. Shapes: N = rows, S = places, I = items, R = requests."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.off_policy import bandit_table, world_table
from benchmarks.off_policy_world import Setting, coverage
from benchmarks.open_bandit import Rows, compared, mean_propensities, read, shares
from pipelines.off_policy import ESTIMATORS
from recsys.errors import InputError
from recsys.metrics.off_policy.outcome import cross_fitted
from recsys.simulate import Simulation
from recsys.simulate.days import DAY_MS
from recsys.simulate.log import visits
from recsys.simulate.truth import relevance, true_value

SPEC = Simulation(users=300, items=30, events=20_000, categories=5, days=1, accidental_share=0.0, seed=4)


def test_the_mean_of_logged_propensities_is_not_the_policy_and_their_harmonic_mean_is() -> None:
    """An item is shown with chance .8 on one day and .2 on the next, in 8 and 2 of 10 rows; the other one the other way."""
    item_N = np.array([0] * 8 + [1] * 2 + [0] * 2 + [1] * 8)
    propensity_N = np.array([0.8] * 8 + [0.2] * 4 + [0.8] * 8)
    log = Rows(item_N, np.zeros(20, int), np.zeros(20), propensity_N)
    assert shares(log, 2).tolist() == [[0.5, 0.5]]
    assert mean_propensities(log, 2, harmonic=False)[0].tolist() == pytest.approx([0.68, 0.68])
    assert mean_propensities(log, 2, harmonic=True)[0].tolist() == pytest.approx([0.5, 0.5])


def test_two_logs_of_one_shop_value_each_other(tmp_path: Path) -> None:
    """Item i is clicked with chance (i + 1) / 10; `bts` prefers the best, as does nobody in `random`."""
    rng, prob_I = np.random.default_rng(0), np.array([0.1, 0.1, 0.2, 0.6])
    for name, chance_I in (("random", np.full(4, 0.25)), ("bts", prob_I)):
        item_N = rng.choice(4, 4000, p=chance_I)
        click_N = rng.random(4000) < (item_N + 1) / 10
        columns = {"item_id": item_N, "position": rng.integers(1, 4, 4000), "click": click_N.astype(int)}
        pl.DataFrame({**columns, "propensity_score": chance_I[item_N]}).write_parquet(tmp_path / f"{name}.parquet")
    found = compared(tmp_path, ESTIMATORS)
    assert [entry["policy"] for entry in found] == ["bts", "random"]
    for entry, value in zip(found, ((np.arange(1, 5) / 10) @ prob_I, 0.25), strict=True):
        assert entry["truth"] == pytest.approx(value, abs=4 * entry["truth_error"])
        for name, estimator in ESTIMATORS.items():
            if not estimator.bias:
                assert abs(entry["estimates"][name]["gap"]) < 4
        assert len(bandit_table(entry)[2]) == len(ESTIMATORS)
    with pytest.raises(InputError, match="holds no random"):
        read(tmp_path / "none")


def test_the_enumerated_truth_is_what_visits_average_to() -> None:
    setting = Setting(SPEC, taste=1.0, popularity=1.0)
    user_R, focus_R, _ = visits(SPEC, setting.world, setting.taste_UD, 30_000, DAY_MS, np.random.default_rng(0))
    relevance_RI = relevance(setting.world, setting.taste_UD[user_R], user_R, focus_R)
    value_R = true_value(setting.policy(user_R), relevance_RI) * setting.looked_at
    assert np.allclose(setting.focus(np.arange(300)).sum(1), 1)
    assert value_R.mean() == pytest.approx(setting.truth, rel=0.01)


def test_coverage_is_counted_and_shown() -> None:
    setting = Setting(SPEC, taste=0.5, popularity=1.0)
    found = coverage(setting, ESTIMATORS, logs=12, requests=300, draws=50)
    assert found["rows"] == 3000
    assert found["estimators"]["ips"]["held"]["users"] >= 9
    assert found["estimators"]["direct"]["held"]["users"] <= 3  # it takes every user for the mean of all
    for name in ("ips", "snips", "DR"):
        entry = found["estimators"][name]
        assert abs(entry["bias"]) < 4 * entry["bias_error"]
    assert found["bounds"]["bernstein"]["mean"] < found["bounds"]["student"]["mean"] < setting.truth
    assert len(world_table("near", found)[2]) == len(ESTIMATORS)


def test_folds_do_not_part_a_cluster() -> None:
    cluster_N = np.random.default_rng(0).integers(20, size=300)
    model = cross_fitted(
        np.ones(300), np.zeros(300, int), np.zeros(300, int), cluster_N, num_items=1, rng=np.random.default_rng(1)
    )
    assert all(len(set(model.fold_N[cluster_N == cluster])) == 1 for cluster in range(20))
    assert len(set(model.fold_N)) == 5
