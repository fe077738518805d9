"""How far a mean over users, or the difference of two, could move with other users drawn from the same population.

Shapes: U = users, R = bootstrap replicates.
"""

from typing import NamedTuple

import numpy as np


class PairedDifference(NamedTuple):
    """The mean of a - b and its interval: a is above b with some confidence where `low` is above 0."""

    mean: float
    low: float
    high: float


def mean_interval(
    value_U: np.ndarray, *, confidence: float = 0.95, replicates: int = 2000, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users: (low, high).

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Users are the unit that is resampled,
    because the rows of one user are dependent.
    """
    value_U = np.asarray(value_U, np.float64)
    if bad := np.count_nonzero(~np.isfinite(value_U)):
        raise ValueError(f"{bad} of {value_U.size} values are not finite: drop these users first")
    assert value_U.ndim == 1, f"one value per user, not shape {value_U.shape}"
    assert value_U.size, "the mean of no user has no interval"
    mean_R = [value_U[rng.integers(value_U.size, size=value_U.size)].mean() for _ in range(replicates)]
    return percentile_interval(mean_R, confidence)


def paired_bootstrap(
    a_U: np.ndarray, b_U: np.ndarray, *, confidence: float = 0.95, replicates: int = 2000, rng: np.random.Generator
) -> PairedDifference:
    """Mean of a - b with its interval, where a_U and b_U are one metric of two systems on the same users in the same order.

    Pairing removes what makes a user hard for both systems, so the interval is narrower than that of two separate means.
    """
    assert a_U.shape == b_U.shape, f"not the same users: shapes {a_U.shape} and {b_U.shape}"
    difference_U = np.asarray(a_U, np.float64) - b_U
    low, high = mean_interval(difference_U, confidence=confidence, replicates=replicates, rng=rng)
    return PairedDifference(float(difference_U.mean()), low, high)


def percentile_interval(estimate_R: np.ndarray | list[float], confidence: float) -> tuple[float, float]:
    """The middle `confidence` share of the replicates' estimates."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1")
    low, high = np.quantile(estimate_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
