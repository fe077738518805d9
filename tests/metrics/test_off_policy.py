"""Off-policy values by hand, and on a bandit whose truth is known. Shapes: N = logged actions, A = actions, C = clusters."""

from types import UnionType
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import binom

from recsys.errors import InputError
from recsys.metrics.off_policy import IPS, SNIPS, Direct, DoublyRobust, Estimator, Logged, Switch, support
from recsys.metrics.off_policy.estimator import EstimatorSpec, Terms
from recsys.metrics.off_policy.intervals import (
    bernstein_bound,
    bootstrap,
    cluster_sums,
    influence,
    normal,
    student_bound,
    values_and_errors,
)
from recsys.metrics.off_policy.outcome import cross_fitted

REWARD = np.array([1.0, 0, 1, 0, 0])
HAND = Logged(
    reward_N=REWARD, propensity_N=np.array([0.5, 0.25, 0.2, 0.5, 0.25]), target_N=np.array([0.5, 0.5, 0.8, 0.25, 0.25]),
    predicted_N=np.array([0.6, 0.2, 0.5, 0.2, 0.1]), direct_N=np.array([0.5, 0.3, 0.4, 0.2, 0.2]),
)  # fmt: skip
union = get_args(Estimator)[0]
MEMBERS: tuple[type[EstimatorSpec], ...] = get_args(union) if isinstance(union, UnionType) else (union,)
ACTION_VALUE, LOGGER, POLICY = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5]), np.array([0.7, 0.2, 0.1])
TRUTH = float(ACTION_VALUE @ POLICY)


def bandit(rows: int, seed: int, model: np.ndarray = ACTION_VALUE, **more: Any) -> Logged:
    """Rewards of 0 and 1 of three actions; `model` is what the outcome model believes of them."""
    rng = np.random.default_rng(seed)
    action_N = rng.choice(3, rows, p=LOGGER)
    reward_N = (rng.random(rows) < ACTION_VALUE[action_N]).astype(float)
    direct_N = np.full(rows, model @ POLICY)
    return Logged(
        reward_N, LOGGER[action_N], POLICY[action_N], predicted_N=model[action_N], direct_N=direct_N, **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (IPS(), 1.0), (IPS(clip=2), 0.6), (SNIPS(), 0.5882), (Direct(), 0.32), (DoublyRobust(), 0.68),
        (DoublyRobust(self_normalised=True), 0.5318), (Switch(above=2), 0.28),
    ],
)  # fmt: skip
def test_values_by_hand(estimator: EstimatorSpec, value: float) -> None:
    """Weights 1, 2, 4, 1/2, 1."""
    assert HAND.weight_N.tolist() == pytest.approx([1, 2, 4, 0.5, 1])
    assert estimator(HAND).value == pytest.approx(value, abs=5e-5)


def test_normal_interval_by_hand() -> None:
    """Of 1, 0, 4, 0, 0: standard deviation 1.7321, over the root of 5."""
    found = normal(IPS()(HAND), HAND.cluster_N)
    assert found == pytest.approx((1.0, 0.7746, -0.5182, 2.5182), abs=5e-5)


def test_a_ratio_has_the_error_of_the_delta_method() -> None:
    """w (r - .5882) / 1.7 is .2422, -.6920, .9689, -.1730, -.3460, whose squares add up to 1.6259."""
    assert influence(SNIPS()(HAND)).tolist() == pytest.approx([0.2422, -0.6920, 0.9689, -0.1730, -0.3460], abs=5e-5)
    assert normal(SNIPS()(HAND), HAND.cluster_N).error == pytest.approx(0.2851, abs=5e-5)


def test_rows_of_a_cluster_stand_together() -> None:
    """Deviations 0, -1 and 3, -1, -1 add up to -1 and 1: an error of sqrt(2 * 2) / 5."""
    assert normal(IPS()(HAND), np.array([0, 0, 1, 1, 1])).error == pytest.approx(0.4)


@pytest.mark.parametrize("estimator", [IPS(), SNIPS(), DoublyRobust(), DoublyRobust(self_normalised=True)])
def test_copies_of_rows_say_nothing_new_of_their_cluster(estimator: EstimatorSpec) -> None:
    log = bandit(60, seed=3, model=np.full(3, 0.4))
    copies = np.repeat(np.arange(60), 5)
    again = Logged(**{name: value[copies] for name, value in vars(log).items()})
    one, five = normal(estimator(log), log.cluster_N), normal(estimator(again), again.cluster_N)
    assert five == pytest.approx(one)
    assert normal(estimator(again), np.arange(300)).error < 0.5 * one.error
    drawn = [bootstrap(estimator(each), each.cluster_N, rng=np.random.default_rng(0), draws=50) for each in (log, again)]
    assert drawn[0] == pytest.approx(drawn[1])


def test_the_difference_to_the_log_is_zero_where_the_policies_are_one() -> None:
    log = bandit(50, seed=1)
    same = Logged(log.reward_N, log.propensity_N, log.propensity_N)
    for estimator in (IPS(), SNIPS()):
        found = normal(estimator(same), same.cluster_N, minus_N=same.reward_N)
        assert found == pytest.approx((0, 0, 0, 0), abs=1e-12)
        drawn = bootstrap(estimator(same), same.cluster_N, minus_N=same.reward_N, rng=np.random.default_rng(0), draws=20)
        assert drawn == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_the_bootstrap_of_a_ratio_draws_its_two_sides_together() -> None:
    """With every reward 1 the ratio is 1 in every draw; with its denominator held fast it would not be."""
    log = bandit(40, seed=2)
    ones = Logged(np.ones(40), log.propensity_N, log.target_N)
    assert bootstrap(SNIPS()(ones), ones.cluster_N, rng=np.random.default_rng(0), draws=50) == pytest.approx((1, 0, 1, 1))


def test_bootstrap_and_normal_agree_on_many_rows() -> None:
    log = bandit(4000, seed=4)
    for estimator in (IPS(), SNIPS(), DoublyRobust(), Switch(above=2)):
        by_formula, drawn = (
            normal(estimator(log), log.cluster_N),
            bootstrap(estimator(log), log.cluster_N, rng=np.random.default_rng(0)),
        )
        assert drawn.error == pytest.approx(by_formula.error, rel=0.1)
        assert (drawn.low, drawn.high) == pytest.approx((by_formula.low, by_formula.high), abs=0.3 * by_formula.error)


def test_lower_bounds_by_hand() -> None:
    """Of 1, 0, 4, 0, 0 with variance 2.4: 1 - 2.1318 sqrt(.6), and 1 - 28 log(40) / 12 - sqrt(2 log(40) 2.4 / 4)."""
    value_C = np.array([1.0, 0, 4, 0, 0])
    assert student_bound(value_C) == pytest.approx(-0.6513, abs=5e-5)
    assert bernstein_bound(value_C, most=4) == pytest.approx(-9.7114, abs=5e-4)
    with pytest.raises(ValueError, match="most=3"):
        bernstein_bound(value_C, most=3)


def test_effective_sample_and_weights_by_hand() -> None:
    found = support(HAND)
    assert (found.ess, found.max_weight, found.mean_weight) == pytest.approx((3.2472, 4, 1.7), abs=5e-5)
    assert found.rows == found.clusters == 5
    assert found.estimable


def test_what_no_log_can_tell_is_not_estimable() -> None:
    certain = Logged(np.ones(4), np.ones(4), np.full(4, 0.5))
    assert "left nothing to chance" in support(certain).problems[0]
    rare = Logged(np.ones(1000), np.full(1000, 0.01), np.eye(1000)[0])
    assert not support(rare).estimable
    assert "worth 1 of 1,000 rows" in support(rare).problems[0]


def test_a_policy_beyond_the_log_has_a_mean_weight_under_one() -> None:
    """Half of what the policy does the logger never did: weights have mean .5, which 400 rows show."""
    rng = np.random.default_rng(0)
    action_N = rng.integers(2, size=400)
    log = Logged(np.ones(400), np.full(400, 0.5), np.array([0.4, 0.1])[action_N])
    assert "not 1" in support(log).problems[0]
    assert not support(bandit(400, seed=0)).problems


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"propensity_N": np.array([0.5, 0])}, "propensity is not above 0 and at most 1 for 1 of 2"),
        ({"propensity_N": np.array([0.5, 1.5])}, "propensity is not above 0"),
        ({"propensity_N": np.array([0.5, np.nan])}, "propensity is unknown or not finite for 1 of 2"),
        ({"reward_N": np.array([np.nan, 1])}, "reward is unknown"),
        ({"target_N": np.array([-0.1, 0.5])}, "between 0 and 1"),
        ({name: np.empty(0) for name in ("reward_N", "propensity_N", "target_N")}, "no action"),
    ],
)  # fmt: skip
def test_numbers_that_can_be_no_log_are_refused(broken: dict[str, np.ndarray], sentence: str) -> None:
    whole = {"reward_N": np.array([0.0, 1]), "propensity_N": np.array([0.5, 0.5]), "target_N": np.array([0.5, 0.5])}
    with pytest.raises(InputError, match=sentence):
        Logged(**(whole | broken))


def test_an_estimator_says_when_it_has_nothing_to_go_by() -> None:
    log = Logged(np.ones(3), np.full(3, 0.5), np.zeros(3))
    with pytest.raises(ValueError, match="probability 0 to every logged action"):
        SNIPS()(log)
    with pytest.raises(ValueError, match="needs an outcome model"):
        DoublyRobust()(log)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_estimator_finds_the_truth_of_a_bandit(member: type[EstimatorSpec]) -> None:
    """With a right outcome model none has a bias."""
    log = bandit(20_000, seed=5)
    found = normal(member()(log), log.cluster_N)
    assert found.value == pytest.approx(TRUTH, abs=4 * found.error + 1e-12)
    assert found.error < 0.02


@pytest.mark.parametrize("member", MEMBERS)
def test_every_estimator_says_whether_a_wrong_model_harms_it(member: type[EstimatorSpec]) -> None:
    log = bandit(20_000, seed=6, model=np.array([0.9, 0.9, 0.9]))
    found = normal(member()(log), log.cluster_N)
    if not member().bias:
        assert abs(found.value - TRUTH) < 4 * found.error
    else:
        assert abs(normal(Direct()(log), log.cluster_N).value - TRUTH) > 0.3


def test_what_is_clipped_or_switched_off_is_biased_and_says_so() -> None:
    log = bandit(20_000, seed=6, model=np.array([0.9, 0.9, 0.9]))
    for estimator, value in ((IPS(clip=1), 0.6 * 0.2 + 0.3 * 0.2 + 0.1 * 0.1), (Switch(above=1), 0.9 - 0.2 * 0.6 - 0.1 * 0.8)):
        found = normal(estimator(log), log.cluster_N)
        assert estimator.bias
        assert found.value == pytest.approx(value, abs=4 * found.error)
        assert abs(found.value - TRUTH) > 10 * found.error


@pytest.mark.parametrize("member", [m for m in MEMBERS if not m().bias])
def test_intervals_hold_the_truth_as_often_as_they_say(member: type[EstimatorSpec]) -> None:
    """Of 300 logs, in as many as the binomial law gives for 95 %, with rows that come in equal pairs."""
    hits = 0
    for seed in range(300):
        log = bandit(250, seed=100 + seed, model=np.array([0.5, 0.5, 0.2]))
        twice = Logged(**{name: np.repeat(value, 2) for name, value in vars(log).items()})
        found = normal(member()(twice), twice.cluster_N)
        hits += found.low <= TRUTH <= found.high
    low, high = binom.interval(0.999, 300, 0.95)
    assert low <= hits <= high


def test_the_outcome_model_is_fitted_on_other_clusters() -> None:
    """The rows of a cluster say nothing of its own predictions: change its rewards, and these stay."""
    rng = np.random.default_rng(0)
    context_N, item_N, cluster_N = rng.integers(2, size=200), rng.integers(4, size=200), np.arange(200) // 4
    reward_N = rng.integers(0, 2, 200).astype(float)
    changed_N = np.where(cluster_N == 7, 1 - reward_N, reward_N)
    before, after = (
        cross_fitted(each, context_N, item_N, cluster_N, num_items=4, rng=np.random.default_rng(1)).predicted(context_N, item_N)
        for each in (reward_N, changed_N)
    )
    mine = cluster_N == 7
    assert before[mine].tolist() == after[mine].tolist()
    assert not np.allclose(before, after)


def test_rates_by_hand() -> None:
    """Two clusters, so each is told by the other. Its rows: context 0 has 1 of 2, context 1 has 0 of 2; mean 1/4.

    With a prior of 2: rates (1 + 2/4) / 4 = .375 and (0 + 2/4) / 4 = .125. Item 0 was in both contexts, with 1 reward against
    .5 expected: (1 + 2) / (.5 + 2) = 1.2; item 1 with 0 against .5: 2 / 2.5 = .8.
    """
    reward_N, context_N, item_N = np.array([1.0, 0, 0, 0]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    twice = [np.tile(each, 2) for each in (reward_N, context_N, item_N)]
    model = cross_fitted(*twice, np.repeat([0, 1], 4), num_items=2, rng=np.random.default_rng(0), prior=2)
    assert model.rate_FS.tolist() == [pytest.approx([0.375, 0.125])] * 2
    assert model.lift_FI.tolist() == [pytest.approx([1.2, 0.8])] * 2
    assert model.predicted(twice[1], twice[2])[:4].tolist() == pytest.approx([0.45, 0.3, 0.15, 0.1])
    even = model.direct(twice[1], model.lifts(np.array([[0.5, 0.5]])), np.zeros(8, int))
    assert even[:4].tolist() == pytest.approx([0.375, 0.375, 0.125, 0.125])
    first = model.direct(twice[1], model.lifts(np.eye(2)), np.zeros(8, int))
    assert first[:4].tolist() == pytest.approx([0.45, 0.45, 0.15, 0.15])


def test_one_cluster_has_no_interval() -> None:
    with pytest.raises(ValueError, match="one cluster"):
        normal(Terms(np.zeros(2), np.ones(2), np.ones(2)), np.zeros(2, int))


@pytest.mark.parametrize("estimator", [IPS(), SNIPS(), DoublyRobust(), DoublyRobust(self_normalised=True)])
def test_the_bootstrap_knows_the_error_of_each_draw(estimator: EstimatorSpec) -> None:
    """With percentiles of a distance in standard errors, the interval is (value - t error) of the formula's own error."""
    log = bandit(3000, seed=7, model=np.array([0.9, 0.2, 0.2]))
    by_formula = normal(estimator(log), log.cluster_N, minus_N=log.reward_N)
    drawn = bootstrap(
        estimator(log), log.cluster_N, rng=np.random.default_rng(0), minus_N=log.reward_N, studentised=True
    )  # fmt: skip
    assert drawn.value == pytest.approx(by_formula.value)
    assert (drawn.high - drawn.low) / by_formula.error == pytest.approx(2 * 1.96, rel=0.1)


def test_studentised_intervals_lean_to_the_side_of_the_large_weights() -> None:
    """Few large gains: how far the truth may lie above the value is more than how far below."""
    gain_N = np.where(np.arange(200) % 40 == 0, 50.0, 0.1)
    terms = Terms(np.zeros(200), gain_N, np.ones(200))
    found = bootstrap(terms, np.arange(200), rng=np.random.default_rng(0), studentised=True)
    assert found.high - found.value > 1.5 * (found.value - found.low)


@pytest.mark.parametrize("estimator", [IPS(), SNIPS(), DoublyRobust(), DoublyRobust(self_normalised=True)])
def test_the_error_of_a_draw_is_that_of_the_formula(estimator: EstimatorSpec) -> None:
    """With every cluster drawn once; the clusters have one to seven rows."""
    log = bandit(90, seed=8, model=np.array([0.9, 0.2, 0.2]))
    cluster_N = np.repeat(np.arange(25), np.tile([1, 2, 3, 5, 7], 5))
    terms = estimator(log)
    columns = (terms.direct_N, np.ones(90), terms.gain_N, terms.mass_N)
    sum_CM = np.stack([cluster_sums(column_N, cluster_N) for column_N in columns], axis=1)
    product_CM = np.einsum("cm,ck->cmk", sum_CM, sum_CM).reshape(25, 16)
    (value,), (error,) = values_and_errors(np.concatenate([sum_CM, product_CM], axis=1).mean(0, keepdims=True), 25)
    assert (value, error) == pytest.approx(normal(terms, cluster_N)[:2])
