"""Shapes: N = rows, U = users."""

import numpy as np
import pytest
from sklearn import metrics as sk

from recsys.metrics.classification import auc, auc_interval, gauc, pr_auc
from recsys.metrics.probability import expected_calibration_error, log_loss


def rows(seed: int, count: int = 500, users: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """score_N with many ties, label_N that leans with it, user_N."""
    rng = np.random.default_rng(seed)
    score_N = rng.integers(0, 12, count) / 12
    label_N = (rng.random(count) < 0.2 + 0.5 * score_N).astype(np.float32)
    return score_N, label_N, rng.integers(0, users, count) * 7


def brute_force_auc(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Over all (positive, negative) pairs."""
    positive, negative = score_N[label_N == 1][:, None], score_N[label_N == 0][None, :]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


def test_auc_by_hand():
    # Positives .8 and .4 against negatives .4 and .1: wins 1 + 1 + 1/2 (tie at .4) + 1 = 3.5 of 4 pairs.
    assert auc(np.array([0.8, 0.4, 0.4, 0.1]), np.array([1, 0, 1, 0])) == 3.5 / 4
    assert auc(np.array([5.0, 5.0, 5.0]), np.array([1, 0, 0])) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_auc_agrees_with_scikit_learn_under_ties(seed: int):
    score_N, label_N, _ = rows(seed)
    assert auc(score_N, label_N) == pytest.approx(sk.roc_auc_score(label_N, score_N))
    assert auc(score_N.astype(np.float32), label_N.astype(bool)) == pytest.approx(brute_force_auc(score_N, label_N))


@pytest.mark.parametrize("label_N", [[0, 0], [1, 1], []])
def test_one_class_has_no_auc(label_N: list[int]):
    score_N, label_N = np.arange(len(label_N), dtype=np.float64), np.array(label_N)
    assert np.isnan(auc(score_N, label_N))
    assert np.isnan(gauc(score_N, label_N, np.zeros(len(label_N), int)))
    assert np.isnan(auc_interval(score_N, label_N, np.zeros(len(label_N), int), rng=np.random.default_rng(0))).all()


def test_gauc_by_hand():
    # User 1, three rows: positive .5 beats .2 and loses to .9: 1/2. User 2, two rows: 1. User 3 has one class.
    # (3 * 1/2 + 2 * 1) / 5 = .7, while the plain mean of the two would be .75.
    score_N = np.array([0.9, 0.3, 0.5, 0.7, 0.2, 0.1, 0.8])
    label_N = np.array([0, 0, 1, 1, 0, 0, 1])
    user_N = np.array([1, 2, 1, 2, 1, 3, 3])
    label_N[6] = 0
    assert gauc(score_N, label_N, user_N) == pytest.approx(0.7)


@pytest.mark.parametrize("seed", range(3))
def test_gauc_agrees_with_a_loop_over_users(seed: int):
    score_N, label_N, user_N = rows(seed, count=200)
    values, weights = [], []
    for user in np.unique(user_N):
        own_N = user_N == user
        if len(set(label_N[own_N])) == 2:
            values.append(sk.roc_auc_score(label_N[own_N], score_N[own_N]))
            weights.append(own_N.sum())
    assert 0 < len(values) < len(np.unique(user_N))
    assert gauc(score_N, label_N, user_N) == pytest.approx(np.average(values, weights=weights))


def test_auc_interval_agrees_with_plain_resampling():
    score_N, label_N, user_N = rows(3, count=150, users=12)
    low, high = auc_interval(score_N, label_N, user_N, replicates=50, rng=np.random.default_rng(9))

    # The same draws, but with the rows of the drawn users written out and scikit-learn's AUC.
    rng, users = np.random.default_rng(9), np.unique(user_N)
    replicates = []
    for _ in range(50):
        drawn = [np.flatnonzero(user_N == users[draw]) for draw in rng.integers(len(users), size=len(users))]
        index = np.concatenate(drawn)
        replicates.append(sk.roc_auc_score(label_N[index], score_N[index]))
    assert (low, high) == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])))


def test_auc_interval_is_wider_when_the_rows_of_a_user_agree():
    score_N, label_N, _ = rows(4, count=200, users=1)
    twenty_times = [np.repeat(array, 20) for array in (score_N, label_N)]
    row_of_origin = np.repeat(np.arange(200), 20)
    clustered = auc_interval(*twenty_times, row_of_origin, rng=np.random.default_rng(0))
    independent = auc_interval(*twenty_times, np.arange(4000), rng=np.random.default_rng(0))
    # Twenty copies tell no more than one: the interval is sqrt(20) = 4.5 times that of 4000 independent rows.
    assert 3 < np.diff(clustered)[0] / np.diff(independent)[0] < 6.5


def test_auc_interval_leaves_out_replicates_with_one_class():
    # Two users of one class each: half of the replicates draw only one of them, the rest have AUC 1.
    score_N, label_N, user_N = np.array([0.9, 0.1]), np.array([1, 0]), np.array([0, 1])
    assert auc_interval(score_N, label_N, user_N, rng=np.random.default_rng(0)) == (1, 1)


def test_pr_auc_by_hand():
    # From the top: .9 positive (precision 1/1), .6 one of each in one step (2/3), .1 negative. Recall rises by 1/2 and 1/2.
    score_N, label_N = np.array([0.6, 0.9, 0.1, 0.6]), np.array([0, 1, 0, 1])
    assert pr_auc(score_N, label_N) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert pr_auc(np.full(4, 0.3), label_N) == 0.5  # no order: the share of positives
    assert np.isnan(pr_auc(score_N, np.zeros(4)))
    assert np.isnan(pr_auc(np.empty(0), np.empty(0)))


@pytest.mark.parametrize("seed", range(5))
def test_pr_auc_agrees_with_scikit_learn_under_ties_whatever_the_order_of_rows(seed: int):
    score_N, label_N, _ = rows(seed)
    assert pr_auc(score_N, label_N) == pytest.approx(sk.average_precision_score(label_N, score_N))
    order_N = np.random.default_rng(seed).permutation(len(score_N))
    assert pr_auc(score_N[order_N], label_N[order_N]) == pytest.approx(pr_auc(score_N, label_N))


def test_bad_input_is_refused():
    label_N, user_N = np.array([1, 0, 1]), np.zeros(3, int)
    score_N = np.array([0.1, np.nan, np.inf])
    for call in (
        lambda: auc(score_N, label_N),
        lambda: gauc(score_N, label_N, user_N),
        lambda: pr_auc(score_N, label_N),
        lambda: log_loss(score_N, label_N),
        lambda: expected_calibration_error(score_N, label_N),
        lambda: auc_interval(score_N, label_N, user_N, rng=np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match="2 of 3 scores are not finite"):
            call()
    with pytest.raises(ValueError, match=r"1 of 3 probabilities are outside 0\.\.1"):
        log_loss(np.array([0.1, 1.5, 0.2]), label_N)
    with pytest.raises(AssertionError, match="removed by the caller"):
        auc(np.array([0.1, 0.2]), np.array([1, np.nan]))
