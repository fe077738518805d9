"""Metrics of how a score orders labels in {0, 1}: AUC, each user's, GAUC and PR-AUC.

A row whose label does not exist (NaN) is removed by the caller: it is not a zero. Equal scores have no order, so no metric here
depends on that of the rows.
Shapes: N = rows, T = runs of equal scores, U = users, R = replicates.
"""

import numpy as np

from recsys.metrics.runs_of_scores import check_scores, run_starts, user_aucs
from recsys.metrics.significance import percentile_interval


def auc(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Probability that a positive scores above a negative, a tie counting one half; NaN where one class is missing.

    AUC = (sum of the positives' ranks - n1 (n1 + 1) / 2) / (n1 n0), tied scores sharing their average rank.
    Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747.
    """
    check_scores(score_N, label_N)
    [auc_], _ = user_aucs(score_N, label_N, np.zeros(len(score_N), np.int64), 1)
    return float(auc_)


def gauc(score_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray) -> float:
    """Mean of the users' own AUC, weighted by their impressions, over the users with both classes; NaN without any.

    GAUC = sum_u n_u AUC_u / sum_u n_u, Zhou et al. 2018 (DIN), https://arxiv.org/abs/1706.06978.
    """
    check_scores(score_N, label_N, user_N)
    own_U, place_N = np.unique(user_N, return_inverse=True)
    auc_U, rows_U = user_aucs(score_N, label_N, place_N, len(own_U))
    both_U = ~np.isnan(auc_U)
    return float(np.average(auc_U[both_U], weights=rows_U[both_U])) if both_U.any() else float("nan")


def pr_auc(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Area under precision over recall as a sum of steps (average precision); NaN without a positive.

    AP = sum_t (R_t - R_{t-1}) P_t over the distinct scores t from the highest down, P_t and R_t being precision and recall of
    the rows that score at least t. Rows of one score are one step, as in scikit-learn's `average_precision_score`. A random
    order has the share of positives. Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874: steps, since lines
    between points of this curve promise too much.
    """
    check_scores(score_N, label_N)
    order_N = np.argsort(-score_N.astype(np.float64))
    start_T = run_starts(score_N[order_N])
    positive_T = np.add.reduceat(label_N[order_N].astype(np.float64), start_T)
    if not positive_T.sum():
        return float("nan")
    precision_T = positive_T.cumsum() / np.append(start_T[1:], len(score_N))
    return float((positive_T * precision_T).sum() / positive_T.sum())


def auc_interval(
    score_N: np.ndarray,
    label_N: np.ndarray,
    user_N: np.ndarray,
    *,
    confidence: float = 0.95,
    replicates: int = 200,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `auc` that resamples users, because the rows of one user are dependent: (low, high).

    A cluster bootstrap: Field and Welsh 2007, https://doi.org/10.1111/j.1467-9868.2007.00593.x. Drawing a user c times gives
    each of their rows the weight c, so the rows are sorted once and a replicate costs O(N). Replicates that drew one class
    only have no AUC and are left out; NaN where none is left.
    """
    check_scores(score_N, label_N, user_N)
    order_N = np.argsort(score_N)
    label_N = label_N[order_N].astype(np.float64)
    start_T = run_starts(score_N[order_N])
    user_N = np.unique(user_N, return_inverse=True)[1][order_N]
    num_users = user_N.max(initial=-1) + 1

    def replicate() -> float:
        draws_U = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        weight_N = draws_U[user_N].astype(np.float64)
        return _weighted_auc(weight_N * label_N, weight_N * (1 - label_N), start_T)

    auc_R = np.array([replicate() for _ in range(replicates)]) if num_users else np.empty(0)
    auc_R = auc_R[~np.isnan(auc_R)]
    return percentile_interval(auc_R, confidence) if len(auc_R) else (float("nan"), float("nan"))


def _weighted_auc(positive_N: np.ndarray, negative_N: np.ndarray, start_T: np.ndarray) -> float:
    """AUC from each row's weight as a positive and as a negative, rows sorted by score."""
    positive_T, negative_T = np.add.reduceat(positive_N, start_T), np.add.reduceat(negative_N, start_T)
    pairs = positive_T.sum() * negative_T.sum()
    beaten_T = negative_T.cumsum() - negative_T / 2  # the negatives below, and half of those that tie
    return float((positive_T * beaten_T).sum() / pairs) if pairs else float("nan")
