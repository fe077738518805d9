"""Shapes: N = rows, U = users, M = bins."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error

from recsys.metrics.probability import (
    expected_calibration_error,
    log_loss,
    normalised_entropy,
    reliability,
    user_log_losses,
)


def rows(seed: int, count: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """probability_N with many ties, label_N that leans with it, user_N from 0."""
    rng = np.random.default_rng(seed)
    probability_N = rng.integers(0, 12, count) / 12
    label_N = (rng.random(count) < 0.2 + 0.5 * probability_N).astype(np.float32)
    return probability_N, label_N, np.unique(rng.integers(0, 40, count), return_inverse=True)[1]


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


def test_normalised_entropy_by_hand():
    # Base rate 1/4: entropy -(1/4 ln 1/4 + 3/4 ln 3/4) = .562335; log loss -(ln .5 + 3 ln .9) / 4 = .252307.
    label_N = np.array([1, 0, 0, 0])
    assert normalised_entropy(np.array([0.5, 0.1, 0.1, 0.1]), label_N) == pytest.approx(0.252307 / 0.562335, rel=1e-5)
    assert normalised_entropy(np.full(4, 0.25), label_N) == pytest.approx(1)
    assert normalised_entropy(np.array([1.0, 0, 0, 0]), label_N) == pytest.approx(0, abs=1e-12)
    assert np.isnan(normalised_entropy(np.array([0.5, 0.5]), np.ones(2)))


@pytest.mark.parametrize("seed", range(3))
def test_normalised_entropy_is_scikit_learns_loss_over_that_of_the_base_rate(seed: int):
    probability_N, label_N, _ = rows(seed)
    base_N = np.full(len(label_N), label_N.mean(dtype=np.float64))
    expected = sk.log_loss(label_N, probability_N) / sk.log_loss(label_N, base_N)
    assert normalised_entropy(probability_N, label_N) == pytest.approx(expected)


def test_each_users_log_loss():
    probability_N, label_N, user_N = rows(1)
    loss_U = user_log_losses(probability_N, label_N, user_N, user_N.max() + 2)
    for user in range(user_N.max() + 1):
        own_N = user_N == user
        assert loss_U[user] == pytest.approx(log_loss(probability_N[own_N], label_N[own_N]))
    assert np.isnan(loss_U[-1])  # nobody


def test_reliability_by_hand():
    # Two bins. (0, .5]: .1 and .5, labels 0 and 1. (.5, 1]: .7, label 1. Of four bins those without rows are left out.
    probability_N, label_N = np.array([0.1, 0.5, 0.7]), np.array([0, 1, 1])
    low, high = reliability(probability_N, label_N, bins=2)
    assert low == {"low": 0, "high": 0.5, "mean": pytest.approx(0.3), "rate": 0.5, "rows": 2}
    assert high == {"low": 0.5, "high": 1, "mean": pytest.approx(0.7), "rate": 1, "rows": 1}
    assert [found["low"] for found in reliability(probability_N, label_N, bins=4)] == [0, 0.25, 0.5]


@pytest.mark.parametrize("bins", [4, 15])
def test_reliability_agrees_with_scikit_learn(bins: int):
    probability_N, label_N, _ = rows(2, count=2000)
    # None lies on an edge, which the two give to other bins.
    probability_N = 0.01 + 0.9 * np.random.default_rng(0).random(len(label_N))
    rate_M, mean_M = calibration_curve(label_N, probability_N, n_bins=bins)
    found = reliability(probability_N, label_N, bins)
    assert [each["rate"] for each in found] == pytest.approx(rate_M.tolist())
    assert [each["mean"] for each in found] == pytest.approx(mean_M.tolist())


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_agrees_with_torchmetrics(bins: int):
    label_N = rows(3, count=2000)[1]
    probability_N = np.random.default_rng(1).random(2000)
    theirs = binary_calibration_error(torch.tensor(probability_N), torch.tensor(label_N).long(), n_bins=bins, norm="l1")
    assert expected_calibration_error(probability_N, label_N, bins) == pytest.approx(float(theirs), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_the_curve_holds_every_row_and_gives_the_error(pairs: list[tuple[float, bool]], bins: int):
    probability_N, label_N = np.array([p for p, _ in pairs]), np.array([label for _, label in pairs], np.float64)
    found = reliability(probability_N, label_N, bins)
    assert sum(each["rows"] for each in found) == len(pairs)
    assert all(each["low"] - 1e-9 <= each["mean"] <= each["high"] + 1e-9 for each in found)
    error = sum(each["rows"] * abs(each["rate"] - each["mean"]) for each in found) / len(pairs)
    assert expected_calibration_error(probability_N, label_N, bins) == pytest.approx(error)
