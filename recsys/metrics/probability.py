"""Metrics of a probability against a label in {0, 1}: log loss and normalised entropy, calibration error and its curve.

A row whose label does not exist (NaN) is removed by the caller: it is not a zero.
Shapes: N = rows, U = users, M = bins.
"""

import numpy as np

from recsys.metrics.runs_of_scores import check_probabilities

EPS = np.finfo(np.float64).eps


def log_loss(probability_N: np.ndarray, label_N: np.ndarray) -> float:
    """Mean of -log(probability of the label that came), in nats.

    Probabilities are clipped to [eps, 1 - eps], eps = 2.2e-16, so that one certain mistake costs 36 nats and not infinity.
    """
    check_probabilities(probability_N, label_N)
    return float(_losses(probability_N, label_N).mean())


def user_log_losses(probability_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray, num_users: int) -> np.ndarray:
    """loss_U, `log_loss` of each user's own rows, NaN where they have none. Users are numbered from 0."""
    check_probabilities(probability_N, label_N, user_N)
    sum_U = np.bincount(user_N, weights=_losses(probability_N, label_N), minlength=num_users)
    rows_U = np.bincount(user_N, minlength=num_users)
    return np.divide(sum_U, rows_U, out=np.full(num_users, np.nan), where=rows_U > 0)


def normalised_entropy(probability_N: np.ndarray, label_N: np.ndarray) -> float:
    """Log loss over that of always answering the share of positives p; 1 is as good as p, 0 perfect; NaN with one class.

    NE = log loss / -(p log p + (1 - p) log(1 - p)). He et al. 2014, https://doi.org/10.1145/2648584.2648589. p is that of the
    rows judged.
    """
    loss, rate = log_loss(probability_N, label_N), float(np.mean(label_N, dtype=np.float64))
    if rate in (0, 1):
        return float("nan")
    return loss / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))


def expected_calibration_error(probability_N: np.ndarray, label_N: np.ndarray, bins: int = 15) -> float:
    """Mean distance of predicted and observed rates over equal-width bins ((m - 1) / M, m / M], weighted by their rows.

    ECE = sum_m n_m / N |mean label in m - mean probability in m|. Naeini, Cooper and Hauskrecht 2015,
    https://doi.org/10.1609/aaai.v29i1.9602; 15 bins as Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    Differs from Guo et al.: the probability is that of label 1, not the confidence of the predicted class; a probability of
    0 belongs to the first bin.
    """
    rows_M, probability_M, label_M = _sums(probability_N, label_N, bins)
    return float(np.abs(label_M - probability_M).sum() / rows_M.sum())


def reliability(probability_N: np.ndarray, label_N: np.ndarray, bins: int = 15) -> list[dict[str, float]]:
    """The bins of `expected_calibration_error` that have rows: `low`, `high`, `mean` predicted, observed `rate` and `rows`.

    Drawn as a curve of rate over mean it is a reliability diagram, DeGroot and Fienberg 1983, https://doi.org/10.2307/2987588.
    """
    rows_M, probability_M, label_M = _sums(probability_N, label_N, bins)
    return [
        {
            "low": m / bins, "high": (m + 1) / bins, "mean": float(probability_M[m] / rows_M[m]),
            "rate": float(label_M[m] / rows_M[m]), "rows": int(rows_M[m]),
        }
        for m in np.flatnonzero(rows_M).tolist()
    ]  # fmt: skip


def _sums(probability_N: np.ndarray, label_N: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rows_M, and the sums of probabilities and of labels in each bin."""
    check_probabilities(probability_N, label_N)
    assert bins >= 1, f"bins={bins}"
    probability_N = probability_N.astype(np.float64)
    bin_N = np.maximum(np.ceil(probability_N * bins).astype(np.int64) - 1, 0)
    weights = (None, probability_N, label_N.astype(np.float64))
    rows_M, probability_M, label_M = (np.bincount(bin_N, weights=weight_N, minlength=bins) for weight_N in weights)
    return rows_M, probability_M, label_M


def _losses(probability_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    probability_N = np.clip(probability_N.astype(np.float64), EPS, 1 - EPS)
    return -np.where(label_N == 1, np.log(probability_N), np.log1p(-probability_N))
