"""Means, AUC and GAUC with users drawn anew (`recsys.metrics.resample`), the same draws for every model that is compared.

Users are what is drawn, since the rows of one user are dependent (`recsys.metrics.classification.auc_interval`); with the same
draws the difference of two models keeps nothing of what makes a user hard for both.
Shapes: N = rows, U = users, numbered from 0, R = draws of all users, T = runs of equal scores, S = seeds.
"""

from typing import NamedTuple

import numpy as np

from recsys.metrics.runs_of_scores import run_starts, user_aucs
from recsys.metrics.significance import percentile_interval


class Difference(NamedTuple):
    """Of two models' means over their seeds. `shown`: neither other users nor other seeds are likely to turn it round."""

    mean: float
    low: float
    high: float
    shown: bool


def drawn_mean(value_N: np.ndarray, user_N: np.ndarray, times_RU: np.ndarray) -> np.ndarray:
    """mean_R over all rows; NaN where nobody drawn has one."""
    num_users = times_RU.shape[1]
    sum_U, rows_U = (np.bincount(user_N, weights=each, minlength=num_users) for each in (value_N, np.ones(len(value_N))))
    total_R = times_RU @ rows_U
    return np.divide(times_RU @ sum_U, total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)


def drawn_auc(score_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray, times_RU: np.ndarray) -> np.ndarray:
    """auc_R over all rows, a row of a user drawn twice counting twice; NaN where one class is missing."""
    order_N = np.argsort(score_N)
    positive_N, user_N, start_T = label_N[order_N] == 1, user_N[order_N], run_starts(score_N[order_N])
    auc_R = np.full(len(times_RU), np.nan)
    for row, times_U in enumerate(times_RU):
        times_N = times_U[user_N].astype(np.float64)
        positive_T = np.add.reduceat(times_N * positive_N, start_T)
        negative_T = np.add.reduceat(times_N * ~positive_N, start_T)
        pairs = positive_T.sum() * negative_T.sum()
        if pairs:
            auc_R[row] = (positive_T * (negative_T.cumsum() - negative_T / 2)).sum() / pairs
    return auc_R


def drawn_gauc(score_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray, times_RU: np.ndarray) -> np.ndarray:
    """gauc_R, the users' own AUC weighted by their rows; NaN where nobody drawn has both classes."""
    auc_U, rows_U = user_aucs(score_N, label_N, user_N, times_RU.shape[1])
    both_U = ~np.isnan(auc_U)
    weight_RU = times_RU[:, both_U] * rows_U[both_U].astype(np.float64)
    total_R = weight_RU.sum(1)
    return np.divide(weight_RU @ auc_U[both_U], total_R, out=np.full(len(total_R), np.nan), where=total_R > 0)


def difference(a_S: np.ndarray, b_S: np.ndarray, a_SR: np.ndarray, b_SR: np.ndarray, confidence: float = 0.95) -> Difference:
    """a - b: `a_S` as measured with each seed, `a_SR` with the users drawn anew.

    The interval is that of other users with these seeds. It says nothing of other seeds, so the values of the two models must
    not overlap either; with one seed each there is no telling.
    """
    drawn_R = a_SR.mean(0) - b_SR.mean(0)
    drawn_R = drawn_R[~np.isnan(drawn_R)]
    low, high = percentile_interval(drawn_R, confidence) if len(drawn_R) else (float("nan"), float("nan"))
    apart = a_S.min() > b_S.max() or a_S.max() < b_S.min()
    return Difference(float(a_S.mean() - b_S.mean()), low, high, bool(apart and (low > 0 or high < 0)))
