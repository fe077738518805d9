"""Metrics of a score or probability against a label in {0, 1}.

A row whose label does not exist (NaN) is removed by the caller: it is not a zero.
Shapes: N = rows, G = groups (users), T = runs of equal scores inside a group, U = users, M = bins, R = replicates.
"""

import numpy as np

from recsys.metrics.significance import percentile_interval


def auc(score_N: np.ndarray, label_N: np.ndarray) -> float:
    """Probability that a positive scores above a negative, a tie counting one half; NaN where one class is missing.

    AUC = (sum of the positives' ranks - n1 (n1 + 1) / 2) / (n1 n0), tied scores sharing their average rank.
    Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747.
    """
    _check(score_N, label_N)
    auc_G, _ = _auc_by_group(score_N, label_N, np.zeros(len(score_N), np.int64))
    return float(auc_G[0]) if len(auc_G) else float("nan")


def gauc(score_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray) -> float:
    """Mean of the users' own AUC, weighted by their impressions, over the users with both classes; NaN without any.

    GAUC = sum_u n_u AUC_u / sum_u n_u, Zhou et al. 2018 (DIN), https://arxiv.org/abs/1706.06978.
    """
    _check(score_N, label_N, user_N)
    auc_G, count_G = _auc_by_group(score_N, label_N, user_N)
    both_G = ~np.isnan(auc_G)
    return float(np.average(auc_G[both_G], weights=count_G[both_G])) if both_G.any() else float("nan")


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
    _check(score_N, label_N, user_N)
    order_N = np.argsort(score_N)
    label_N = label_N[order_N].astype(np.float64)
    start_T = _run_starts(score_N[order_N])
    user_N = np.unique(user_N, return_inverse=True)[1][order_N]
    num_users = user_N.max(initial=-1) + 1

    def replicate() -> float:
        draws_U = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        weight_N = draws_U[user_N].astype(np.float64)
        return _weighted_auc(weight_N * label_N, weight_N * (1 - label_N), start_T)

    auc_R = np.array([replicate() for _ in range(replicates)]) if num_users else np.empty(0)
    auc_R = auc_R[~np.isnan(auc_R)]
    return percentile_interval(auc_R, confidence) if len(auc_R) else (float("nan"), float("nan"))


def log_loss(probability_N: np.ndarray, label_N: np.ndarray) -> float:
    """Mean of -log(probability of the label that came), in nats.

    Probabilities are clipped to [eps, 1 - eps], eps = 2.2e-16, so that one certain mistake costs 36 nats and not infinity.
    """
    _check_probability(probability_N, label_N)
    eps = np.finfo(np.float64).eps
    probability_N = np.clip(probability_N.astype(np.float64), eps, 1 - eps)
    return float(-np.where(label_N == 1, np.log(probability_N), np.log1p(-probability_N)).mean())


def expected_calibration_error(probability_N: np.ndarray, label_N: np.ndarray, bins: int = 15) -> float:
    """Mean distance of predicted and observed rates over equal-width bins ((m - 1) / M, m / M], weighted by their rows.

    ECE = sum_m n_m / N |mean label in m - mean probability in m|. Naeini, Cooper and Hauskrecht 2015,
    https://doi.org/10.1609/aaai.v29i1.9602; 15 bins as Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    Differs from Guo et al.: the probability is that of label 1, not the confidence of the predicted class; a probability of
    0 belongs to the first bin.
    """
    _check_probability(probability_N, label_N)
    assert bins >= 1, f"bins={bins}"
    probability_N = probability_N.astype(np.float64)
    bin_N = np.maximum(np.ceil(probability_N * bins).astype(np.int64) - 1, 0)
    gap_M = np.bincount(bin_N, weights=label_N - probability_N, minlength=bins)
    return float(np.abs(gap_M).sum() / len(label_N))


def _auc_by_group(score_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """auc_G (NaN where a group has one class) and the groups' numbers of rows."""
    order_N = np.lexsort((score_N, group_N))
    score_N, label_N, group_N = score_N[order_N], label_N[order_N].astype(np.float64), group_N[order_N]
    start_G, start_T = _run_starts(group_N), _run_starts(group_N, score_N)
    count_G, count_T = np.diff(start_G, append=len(group_N)), np.diff(start_T, append=len(group_N))

    # The average rank of a run, counted from 1 at the lowest score of its group.
    group_N = np.repeat(np.arange(len(start_G)), count_G)
    rank_T = start_T - start_G[group_N[start_T]] + (count_T + 1) / 2
    rank_N = np.repeat(rank_T, count_T)

    positives_G = np.bincount(group_N, weights=label_N, minlength=len(start_G))
    rank_sum_G = np.bincount(group_N, weights=label_N * rank_N, minlength=len(start_G))
    pairs_G = positives_G * (count_G - positives_G)
    wins_G = rank_sum_G - positives_G * (positives_G + 1) / 2
    return np.divide(wins_G, pairs_G, out=np.full(len(start_G), np.nan), where=pairs_G > 0), count_G


def _weighted_auc(positive_N: np.ndarray, negative_N: np.ndarray, start_T: np.ndarray) -> float:
    """AUC from each row's weight as a positive and as a negative, rows sorted by score."""
    positive_T, negative_T = np.add.reduceat(positive_N, start_T), np.add.reduceat(negative_N, start_T)
    pairs = positive_T.sum() * negative_T.sum()
    beaten_T = negative_T.cumsum() - negative_T / 2  # the negatives below, and half of those that tie
    return float((positive_T * beaten_T).sum() / pairs) if pairs else float("nan")


def _run_starts(*sorted_keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins, in arrays that are sorted together."""
    new_N = np.ones(len(sorted_keys[0]), bool)
    new_N[1:] = np.any([key_N[1:] != key_N[:-1] for key_N in sorted_keys], axis=0)
    return np.flatnonzero(new_N)


def _check(score_N: np.ndarray, label_N: np.ndarray, *others: np.ndarray) -> None:
    assert all(array.shape == score_N.shape for array in (label_N, *others)), "one score and one label per row"
    assert ((label_N == 0) | (label_N == 1)).all(), "labels are 0 or 1; rows without a label are removed by the caller"
    if bad := np.count_nonzero(~np.isfinite(score_N)):
        raise ValueError(f"{bad} of {score_N.size} scores are not finite")


def _check_probability(probability_N: np.ndarray, label_N: np.ndarray) -> None:
    _check(probability_N, label_N)
    assert len(label_N), "no row to take the mean of"
    if bad := np.count_nonzero((probability_N < 0) | (probability_N > 1)):
        raise ValueError(f"{bad} of {probability_N.size} probabilities are outside 0..1")
