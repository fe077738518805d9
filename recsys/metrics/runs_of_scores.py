"""Runs of equal scores in sorted rows, and what is counted from them: every user's own AUC.

Shapes: N = rows, U = users, T = runs of equal scores.
"""

import numpy as np


def run_starts(*sorted_keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins, in arrays that are sorted together."""
    new_N = np.ones(len(sorted_keys[0]), bool)
    new_N[1:] = np.any([key_N[1:] != key_N[:-1] for key_N in sorted_keys], axis=0)
    return np.flatnonzero(new_N)


def user_aucs(
    score_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray, num_users: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """auc_U, NaN where a user has one class, and their numbers of rows. Users are numbered from 0."""
    order_N = np.lexsort((score_N, user_N))
    positive_N, user_N = (label_N[order_N] == 1).astype(np.float64), user_N[order_N]
    start_T = run_starts(user_N, score_N[order_N])
    positive_T, user_T = np.add.reduceat(positive_N, start_T), user_N[start_T]
    negative_T = np.diff(start_T, append=len(user_N)) - positive_T
    rows_U = np.bincount(user_N, minlength=num_users)
    positives_U = np.bincount(user_N, weights=positive_N, minlength=num_users)
    negatives_U = rows_U - positives_U
    before_U = negatives_U.cumsum() - negatives_U  # negatives of the users sorted before
    below_T = negative_T.cumsum() - negative_T / 2 - before_U[user_T]
    wins_U = np.bincount(user_T, weights=positive_T * below_T, minlength=num_users)
    pairs_U = positives_U * negatives_U
    return np.divide(wins_U, pairs_U, out=np.full(num_users, np.nan), where=pairs_U > 0), rows_U


def check_scores(score_N: np.ndarray, label_N: np.ndarray, *others: np.ndarray) -> None:
    """One finite score and one label in {0, 1} per row. Raises ValueError where a score is not finite."""
    assert all(array.shape == score_N.shape for array in (label_N, *others)), "one score and one label per row"
    assert ((label_N == 0) | (label_N == 1)).all(), "labels are 0 or 1; rows without a label are removed by the caller"
    if bad := np.count_nonzero(~np.isfinite(score_N)):
        raise ValueError(f"{bad} of {score_N.size} scores are not finite")


def check_probabilities(probability_N: np.ndarray, label_N: np.ndarray, *others: np.ndarray) -> None:
    """Such scores, at least one of them, all in 0..1. Raises ValueError where one is not."""
    check_scores(probability_N, label_N, *others)
    assert len(label_N), "no row to take the mean of"
    if bad := np.count_nonzero((probability_N < 0) | (probability_N > 1)):
        raise ValueError(f"{bad} of {probability_N.size} probabilities are outside 0..1")
