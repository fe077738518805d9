"""Shapes: U = users."""

import numpy as np
import pytest

from recsys.metrics.significance import mean_interval, paired_bootstrap


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_two_users_have_the_binomial_interval():
    # The resampled mean of {0, 1} is 0, 1/2, 1 with probability 1/4, 1/2, 1/4: the middle 95 % reaches both ends,
    # the middle 40 % (quantiles .3 and .7) holds the centre only.
    value_U = np.array([0.0, 1.0])
    assert mean_interval(value_U, rng=rng()) == (0, 1)
    assert mean_interval(value_U, confidence=0.4, rng=rng()) == (0.5, 0.5)


def test_the_interval_of_a_mean_agrees_with_the_normal_one():
    value_U = rng().normal(3, 2, 5000)
    low, high = mean_interval(value_U, rng=rng())
    margin = 1.959964 * value_U.std() / np.sqrt(5000)
    assert low == pytest.approx(value_U.mean() - margin, abs=0.1 * margin)
    assert high == pytest.approx(value_U.mean() + margin, abs=0.1 * margin)


def test_intervals_hold_the_truth_as_often_as_they_say():
    world = rng()
    covered = 0
    for _ in range(300):
        low, high = mean_interval(world.exponential(1.0, 100), confidence=0.8, replicates=200, rng=world)
        covered += low <= 1.0 <= high
    # 300 tries at .8: standard deviation .023; four of them, and .02 for the skewed population.
    assert abs(covered / 300 - 0.8) < 0.115


def test_pairing_removes_what_users_share():
    world = rng()
    common_U = world.normal(0, 10, 400)
    a_U, b_U = common_U + world.normal(0.3, 0.5, 400), common_U + world.normal(0, 0.5, 400)
    difference = paired_bootstrap(a_U, b_U, rng=rng())
    assert difference.mean == pytest.approx((a_U - b_U).mean())
    assert 0 < difference.low < difference.mean < difference.high
    a_low, a_high = mean_interval(a_U, rng=rng())
    assert difference.high - difference.low < 0.2 * (a_high - a_low)


def test_a_constant_lead_is_certain():
    b_U = np.array([0.25, 0.5, 0.75])
    assert paired_bootstrap(b_U + 0.25, b_U, rng=rng()) == (0.25, 0.25, 0.25)


def test_the_same_seed_gives_the_same_interval():
    value_U = rng().random(50)
    assert mean_interval(value_U, rng=rng()) == mean_interval(value_U, rng=rng())
    assert mean_interval(value_U, rng=rng()) != mean_interval(value_U, rng=np.random.default_rng(1))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 of 3 values are not finite"):
        mean_interval(np.array([1, np.nan, np.inf]), rng=rng())
    with pytest.raises(ValueError, match="confidence=95"):
        mean_interval(np.array([1.0, 2.0]), confidence=95, rng=rng())
    with pytest.raises(AssertionError, match="not the same users"):
        paired_bootstrap(np.zeros(2), np.zeros(3), rng=rng())
