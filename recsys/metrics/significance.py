"""How far a mean over users, or the difference of two, could move with other users drawn from the same population, and whether
that leaves room for chance.

The verdict is `bootstrap_tests`; benchmarks/significance.py measures how often it and its neighbours cry wolf.
Shapes: U = users, R = bootstrap replicates, M = columns (runs, metrics) with the same draws, H = hypotheses.
"""

from typing import NamedTuple

import numpy as np

from recsys.metrics.resample import drawn_user_means

REPLICATES = 2000
EXACT = 50  # users whose signed ranks are counted out
SAME = 1e-4  # of the spread: two distances that rounding has moved apart
TAIL = 10  # fewer replicates than this say little about their share


class PairedDifference(NamedTuple):
    """The mean of a - b, its interval, and the chance of one as far from 0 where there is none."""

    mean: float
    low: float
    high: float
    p: float


class Tests(NamedTuple):
    """Of each column, whose values are differences: mean, interval, p-value."""

    mean_M: np.ndarray
    low_M: np.ndarray
    high_M: np.ndarray
    p_M: np.ndarray


def mean_interval(
    value_U: np.ndarray, *, confidence: float = 0.95, replicates: int = REPLICATES, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over users: (low, high).

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Users are the unit that is resampled,
    because the rows of one user are dependent. It stays within the values; for a difference take `paired_bootstrap`.
    """
    value_U = _checked(value_U)
    assert value_U.ndim == 1, f"one value per user, not shape {value_U.shape}"
    return percentile_interval(drawn_user_means(value_U[:, None], replicates, rng)[:, 0], confidence)


def paired_bootstrap(
    a_U: np.ndarray, b_U: np.ndarray, *, confidence: float = 0.95, replicates: int = REPLICATES, rng: np.random.Generator
) -> PairedDifference:
    """`bootstrap_tests` of a - b, where a_U and b_U are one metric of two systems on the same users in the same order.

    Pairing removes what makes a user hard for both systems, so the interval is narrower than that of two separate means.
    """
    assert a_U.shape == b_U.shape, f"not the same users: shapes {a_U.shape} and {b_U.shape}"
    difference_UM = _checked(np.asarray(a_U, np.float64) - b_U)[:, None]
    drawn_RM = drawn_user_means(difference_UM, replicates, rng)
    found = bootstrap_tests(
        difference_UM.mean(0), drawn_RM, changed_M=np.count_nonzero(difference_UM, axis=0), confidence=confidence
    )
    return PairedDifference(*(float(each_M[0]) for each_M in found))


def bootstrap_tests(
    mean_M: np.ndarray, drawn_RM: np.ndarray, *, changed_M: np.ndarray, confidence: float = 0.95
) -> Tests:  # fmt: skip
    """Two-sided test of every column's null, that the population's mean difference is 0, and the interval of the same test.

    `mean_M` as measured, `drawn_RM` of users drawn anew, `changed_M` the users whose difference is not 0. Under the null the
    draws' distances from the measured mean are what chance does (centred differences):

        p = (1 + #{r: |drawn_r - mean| >= |mean|}) / (1 + R)
        interval = mean -+ the `confidence` quantile of |drawn - mean|

    Efron and Tibshirani 1993, chapter 16.4; the added ones: Davison and Hinkley 1997, "Bootstrap Methods and their
    Application", chapter 4.2. Differs from them in two places. Where fewer than 10 replicates lie beyond, their share is
    noise, and Student's tail with the draws' spread stands for it, so that a correction over hundreds of runs has small values
    to work with. And p is at least 2^(1 - changed), the smallest that turning the signs round could give: five users who agree
    are no proof. With 100 users and differences that are mostly small losses and a few large gains, p is too small: 102 false
    positives of 1,000 (benchmarks/significance.py); with 1,000 users it holds.
    """
    from scipy.special import stdtr  # here, so that what trains does without SciPy

    _check_confidence(confidence)
    apart_RM = np.abs(drawn_RM - mean_M)
    spread_M = np.sqrt(np.mean(apart_RM**2, axis=0))
    beyond_M = (apart_RM >= np.abs(mean_M) - SAME * spread_M).sum(0)
    share_M = (1 + beyond_M) / (1 + len(drawn_RM))
    distance_M = np.divide(np.abs(mean_M), spread_M, out=np.full(len(spread_M), np.inf), where=spread_M > 0)
    tail_M = 2 * stdtr(np.maximum(changed_M - 1, 1), -distance_M)
    p_M = np.where(beyond_M < TAIL, tail_M, share_M)
    p_M = np.clip(p_M, 2.0 ** (1 - np.maximum(changed_M, 1)), 1)
    reach_M = np.quantile(apart_RM, confidence, axis=0)
    return Tests(mean_M, mean_M - reach_M, mean_M + reach_M, p_M)


def paired_t(difference_U: np.ndarray) -> float:
    """Two-sided p of Student's paired t test, mean / (standard deviation / sqrt(n)) with n - 1 degrees of freedom.

    Student 1908, https://doi.org/10.2307/2331554.
    """
    from scipy.special import stdtr

    n, mean = len(difference_U), float(difference_U.mean())
    if n < 2 or mean == 0:
        return 1.0
    error = float(difference_U.std(ddof=1)) / np.sqrt(n)
    return float(2 * stdtr(n - 1, -abs(mean) / error)) if error else 0.0


def wilcoxon(difference_U: np.ndarray) -> float:
    """Two-sided p of the signed-rank test; users without a difference are left out; 1 where nobody differs.

    Wilcoxon 1945, https://doi.org/10.2307/3001968, as SciPy has it: exact for at most 50 users without ties, else normal. Its
    null is that differences are symmetric around 0, not that their mean is 0: a few large gains against many small losses
    part them.
    """
    from scipy import stats

    changed_U = difference_U[difference_U != 0]
    few = 0 < len(changed_U) <= EXACT and len(np.unique(np.abs(changed_U))) == len(changed_U)
    method = (
        "exact" if few else "asymptotic"
    )  # by itself SciPy permutes the signs of a few users with ties, for a third of a second
    return float(stats.wilcoxon(changed_U, method=method).pvalue) if len(changed_U) else 1.0


def holm(p_H: np.ndarray, hypotheses: int | None = None) -> np.ndarray:
    """p-values corrected so that the chance of any false positive among them stays below the level.

    p'_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), the smallest first. Holm 1979, https://www.jstor.org/stable/4615733.
    `hypotheses`: m, where more were tested than are given: the pairs of all runs, where one was made the reference because it
    is the best. The others' p-values are then taken to be above these, which can only correct too much.
    """
    m = len(p_H) if hypotheses is None else hypotheses
    assert m >= len(p_H), f"{len(p_H)} of {m} hypotheses"
    order_H = np.argsort(p_H, kind="stable")
    corrected_H = np.empty(len(p_H))
    corrected_H[order_H] = np.minimum(1, np.maximum.accumulate((m - np.arange(len(p_H))) * p_H[order_H]))
    return corrected_H


def percentile_interval(estimate_R: np.ndarray | list[float], confidence: float) -> tuple[float, float]:
    """The middle `confidence` share of the replicates' estimates."""
    _check_confidence(confidence)
    low, high = np.quantile(estimate_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not between 0 and 1")


def _checked(value_U: np.ndarray) -> np.ndarray:
    value_U = np.asarray(value_U, np.float64)
    if bad := np.count_nonzero(~np.isfinite(value_U)):
        raise ValueError(f"{bad} of {value_U.size} values are not finite: drop these users first")
    assert value_U.size, "the mean of no user has no interval"
    return value_U
