"""How far an estimated value could be from the policy's own, with clusters of rows drawn anew.

Shapes: N = logged actions, C = clusters, M = sums of a cluster, R = bootstrap draws.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from recsys.metrics.off_policy.estimator import Terms
from recsys.metrics.resample import drawn_user_means
from recsys.metrics.significance import percentile_interval


class Estimate(NamedTuple):
    """A value, its standard error and a two-sided interval."""

    value: float
    error: float
    low: float
    high: float


def cluster_sums(value_N: np.ndarray, cluster_N: np.ndarray) -> np.ndarray:
    return np.bincount(cluster_N, value_N, int(cluster_N.max()) + 1)


def influence(terms: Terms, minus_N: np.ndarray | None = None) -> np.ndarray:
    """influence_N of every row on the value (less the mean of `minus_N`): of mean 0, and its spread is that of the value."""
    ratio = terms.gain_N.sum() / terms.mass_N.sum()
    found_N = terms.direct_N - terms.direct_N.mean() + (terms.gain_N - ratio * terms.mass_N) / terms.mass_N.mean()
    return found_N if minus_N is None else found_N - (minus_N - minus_N.mean())


def normal(
    terms: Terms, cluster_N: np.ndarray, *, minus_N: np.ndarray | None = None, confidence: float = 0.95
) -> Estimate:  # fmt: skip
    """The value and 1.96 standard errors to each side, by the delta method where the value is a ratio.

    `minus_N`: the value less the mean of these, as of the logged rewards, whose rows are the same. Clusters count as drawn from
    more of their kind, so their sizes are random, too.
    """
    value = terms.value - (0.0 if minus_N is None else float(minus_N.mean()))
    sum_C = cluster_sums(influence(terms, minus_N), cluster_N)
    if len(sum_C) < 2:
        raise ValueError("one cluster has no interval: name a column that tells rows apart")
    error = float(np.sqrt(len(sum_C) / (len(sum_C) - 1) * (sum_C**2).sum()) / len(cluster_N))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Estimate(value, error, value - reach, value + reach)


def bootstrap(
    terms: Terms, cluster_N: np.ndarray, *, rng: np.random.Generator, minus_N: np.ndarray | None = None,
    confidence: float = 0.95, draws: int = 1000, studentised: bool = False,
) -> Estimate:  # fmt: skip
    """Interval by clusters drawn anew; a ratio is formed anew in every draw.

    Percentiles, or (`studentised`) the percentiles of each draw's distance in its own standard errors, which follows the skew
    that a few large weights give. Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 13 and 12.5.
    """
    direct_N = terms.direct_N if minus_N is None else terms.direct_N - minus_N
    columns = (direct_N, np.ones(len(cluster_N)), terms.gain_N, terms.mass_N)
    sum_CM = np.stack([cluster_sums(column_N, cluster_N) for column_N in columns], axis=1)
    product_CM = (sum_CM[:, :, None] * sum_CM[:, None, :]).reshape(len(sum_CM), -1)
    drawn_RM = drawn_user_means(np.concatenate([sum_CM, product_CM], axis=1), draws, rng)
    drawn_RM = drawn_RM[drawn_RM[:, 3] > 0]  # a draw without any weight has no value
    value_R, error_R = values_and_errors(drawn_RM, len(sum_CM))
    spread = float(value_R.std(ddof=1))
    whole_RM = np.concatenate([sum_CM, product_CM], axis=1).mean(0, keepdims=True)
    (value,), (error,) = values_and_errors(whole_RM, len(sum_CM))
    if not studentised:
        return Estimate(float(value), spread, *percentile_interval(value_R, confidence))
    distance_R = np.divide(value_R - value, error_R, where=error_R > 0, out=np.zeros(len(value_R)))
    low, high = percentile_interval(distance_R, confidence)
    return Estimate(float(value), spread, float(value - high * error), float(value - low * error))


def values_and_errors(mean_RM: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """(value_R, error_R) by the clusters' mean sums (direct, rows, gain, mass) and their mean products."""
    direct_R, rows_R, gain_R, mass_R = mean_RM[:, :4].T
    slope_RM = np.stack([1 / rows_R, -direct_R / rows_R**2, 1 / mass_R, -gain_R / mass_R**2], axis=1)
    variance_R = np.einsum("rm,rmk,rk->r", slope_RM, mean_RM[:, 4:].reshape(-1, 4, 4), slope_RM) / max(1, clusters - 1)
    return direct_R / rows_R + gain_R / mass_R, np.sqrt(np.maximum(variance_R, 0))


def student_bound(value_C: np.ndarray, confidence: float = 0.95) -> float:
    """What the mean is above, with this confidence, if means of so many values are normal.

    One-sided, of Thomas, Theocharous and Ghavamzadeh 2015, https://proceedings.mlr.press/v37/thomas15.html.
    """
    n = len(value_C)
    return float(value_C.mean() - stdtrit(n - 1, confidence) * np.sqrt(value_C.var() / (n - 1)))


def bernstein_bound(value_C: np.ndarray, most: float, confidence: float = 0.95) -> float:
    """What the mean is above, with at least this confidence, whatever the distribution of values between 0 and `most`.

    Empirical Bernstein bound, Maurer and Pontil 2009, https://arxiv.org/abs/0907.3740. `most` has to be known beforehand: the
    largest value that was seen is not a limit.
    """
    if value_C.min() < 0 or value_C.max() > most * (1 + 1e-9):
        raise ValueError(f"values from {value_C.min():.4g} to {value_C.max():.4g} are not between 0 and most={most:.4g}")
    n, log_term = len(value_C), np.log(2 / (1 - confidence))
    spread = np.sqrt(2 * log_term * value_C.var() / (n - 1))
    return float(value_C.mean() - 7 * most * log_term / (3 * (n - 1)) - spread)
