"""Shapes: U = users, R = replicates, M = columns, H = hypotheses."""

import numpy as np
import pytest
from scipy import stats

from recsys.metrics.resample import drawn_user_means
from recsys.metrics.significance import bootstrap_tests, holm, mean_interval, paired_bootstrap, paired_t, wilcoxon


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


def test_a_constant_lead_has_no_width_and_few_users_prove_nothing():
    b_U = np.array([0.25, 0.5, 0.75])
    # three users who agree: turning each sign round gives 8 equally likely tables, of which 2 are as far from 0
    assert paired_bootstrap(b_U + 0.25, b_U, rng=rng()) == (0.25, 0.25, 0.25, 0.25)
    assert paired_bootstrap(np.tile(b_U, 3) + 0.25, np.tile(b_U, 3), rng=rng()).p == pytest.approx(2 / 2**9)


def test_equal_systems_do_not_differ():
    assert paired_bootstrap(np.arange(9.0), np.arange(9.0), rng=rng()) == (0, 0, 0, 1)


def test_two_users_have_the_test_that_can_be_counted():
    # differences 0 and 1: mean 1/2; the draws' mean lies 1/2 away in half of the draws and nowhere in the other half
    found = paired_bootstrap(np.array([0.0, 1.0]), np.zeros(2), rng=rng(), replicates=4000)
    assert found.p == pytest.approx(1, abs=1e-9)  # one user who differs shows nothing at all
    drawn_RM = np.array([[0.0], [0.5], [1.0], [0.5]] * 25)
    tests = bootstrap_tests(np.array([0.5]), drawn_RM, changed_M=np.array([50]))
    assert tests.p_M[0] == pytest.approx(51 / 101)  # (1 + 50 beyond) of (1 + 100)
    assert (tests.low_M[0], tests.high_M[0]) == (0, 1)


@pytest.mark.parametrize("lead", [0.0, 0.06, 0.12, 0.5])
def test_with_many_normal_values_all_tests_agree_with_student(lead: float):
    gap_U = rng().normal(lead, 1, 1000)
    found = paired_bootstrap(gap_U, np.zeros(1000), rng=rng(), replicates=4000)
    student = float(stats.ttest_1samp(gap_U, 0).pvalue)
    assert paired_t(gap_U) == pytest.approx(student, rel=1e-9)
    if student > 1e-4:
        assert found.p == pytest.approx(student, abs=0.02)
    else:  # far beyond what 4,000 replicates resolve
        assert np.log10(found.p) == pytest.approx(np.log10(student), rel=0.1)
    assert wilcoxon(gap_U) == pytest.approx(float(stats.wilcoxon(gap_U).pvalue))


def test_the_interval_leaves_0_out_where_the_test_says_so():
    gap_UM = rng().normal(np.linspace(0, 0.5, 60), 1, (100, 60))
    found = bootstrap_tests(gap_UM.mean(0), drawn_user_means(gap_UM, 2000, rng()), changed_M=np.full(60, 100))
    outside_M = (found.low_M > 0) | (found.high_M < 0)
    assert 5 < outside_M.sum() < 55
    assert (outside_M != (found.p_M < 0.05)).sum() <= 1  # a value on the edge


def test_columns_have_the_same_draws_as_one_alone():
    gap_UM = rng().normal(size=(300, 4))
    drawn_RM = drawn_user_means(gap_UM, 500, rng())
    alone = paired_bootstrap(gap_UM[:, 2], np.zeros(300), replicates=500, rng=rng())
    among = bootstrap_tests(gap_UM.mean(0), drawn_RM, changed_M=np.full(4, 300))
    assert (among.low_M[2], among.high_M[2], among.p_M[2]) == pytest.approx(alone[1:], rel=1e-4)


def test_signed_ranks_by_hand():
    # ranks 1 to 5, all positive: 2 of the 2^5 sign tables are as far; a user without a difference does not count
    assert wilcoxon(np.array([0.1, 0.2, 0.0, 0.3, 0.4, 0.5])) == pytest.approx(2 / 32)
    assert wilcoxon(np.zeros(3)) == 1
    assert (paired_t(np.zeros(3)), paired_t(np.ones(1))) == (1, 1)


def test_holm_by_hand():
    # sorted .01, .03, .04: times 3, 2, 1 = .03, .06, .04, and none below the one before
    assert holm(np.array([0.03, 0.01, 0.04])).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([0.01, 0.02]), hypotheses=6).tolist() == pytest.approx([0.06, 0.10])
    assert holm(np.empty(0)).tolist() == []


def test_the_same_seed_gives_the_same_interval():
    value_U = rng().random(50)
    assert mean_interval(value_U, rng=rng()) == mean_interval(value_U, rng=rng())
    assert mean_interval(value_U, rng=rng()) != mean_interval(value_U, rng=np.random.default_rng(1))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="2 of 3 values are not finite"):
        mean_interval(np.array([1, np.nan, np.inf]), rng=rng())
    with pytest.raises(ValueError, match="confidence=95"):
        mean_interval(np.array([1.0, 2.0]), confidence=95, rng=rng())
    with pytest.raises(ValueError, match="confidence=95"):
        paired_bootstrap(np.ones(2), np.zeros(2), confidence=95, rng=rng())
    with pytest.raises(AssertionError, match="not the same users"):
        paired_bootstrap(np.zeros(2), np.zeros(3), rng=rng())
