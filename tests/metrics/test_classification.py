"""Shapes: N = rows, U = users."""

import numpy as np
import pytest
from sklearn import metrics as sk

from recsys.metrics.classification import auc, auc_interval, expected_calibration_error, gauc, log_loss


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


def test_log_loss_by_hand_and_against_scikit_learn():
    # -(ln .5 + ln .75) / 2 = (.693147 + .287682) / 2
    assert log_loss(np.array([0.5, 0.25]), np.array([1, 0])) == pytest.approx(0.4904146)
    # A certain mistake is clipped at 2.2e-16: -ln 2.2e-16 = 36.04; a certain hit costs nothing.
    assert log_loss(np.array([0.0]), np.array([1])) == pytest.approx(36.0437, abs=1e-4)
    assert log_loss(np.array([1.0], np.float32), np.array([1])) == pytest.approx(0, abs=1e-15)
    probability_N, label_N, _ = rows(5)
    assert log_loss(probability_N, label_N) == pytest.approx(sk.log_loss(label_N, probability_N.astype(np.float64)))


def test_calibration_error_by_hand():
    # Two bins. (0, .5]: probabilities .1 and .5, labels 0 and 1: |.5 - .3| = .2 over 2 rows.
    # (.5, 1]: .7, .9, labels 1 and 1: |1 - .8| = .2 over 2 rows. With 0 in the first bin as a fifth row, label 0:
    # first bin |1/3 - .2| = .4/3 over 3 rows; ECE = (3 * .4/3 + 2 * .2) / 5 = .16.
    probability_N, label_N = np.array([0.1, 0.5, 0.7, 0.9, 0.0]), np.array([0, 1, 1, 1, 0])
    assert expected_calibration_error(probability_N[:4], label_N[:4], bins=2) == pytest.approx(0.2)
    assert expected_calibration_error(probability_N, label_N, bins=2) == pytest.approx(0.16)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0
    # 0 shares the first bin: |1/3 - .2| over 3 rows. In a bin of its own it would add |1 - 0| and |0 - .3| * 2: 1.6 / 3.
    assert expected_calibration_error(np.array([0.0, 0.1, 0.5]), np.array([1, 0, 0]), bins=2) == pytest.approx(0.4 / 3)
    # One bin sees only the overall rate: mean label 3/5, mean probability 2.2/5.
    assert expected_calibration_error(probability_N, label_N, bins=1) == pytest.approx(0.16)


def test_calibration_error_sees_overconfidence_and_not_honest_probabilities():
    rng = np.random.default_rng(6)
    probability_N = rng.random(50_000)
    label_N = rng.random(50_000) < probability_N
    overconfident_N = np.where(probability_N > 0.5, 0.99, 0.01)
    assert expected_calibration_error(probability_N, label_N) < 0.01
    assert expected_calibration_error(overconfident_N, label_N) > 0.2


def test_bad_input_is_refused():
    label_N, user_N = np.array([1, 0, 1]), np.zeros(3, int)
    score_N = np.array([0.1, np.nan, np.inf])
    for call in (
        lambda: auc(score_N, label_N),
        lambda: gauc(score_N, label_N, user_N),
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
