"""Metrics of predictions against a truth, with users drawn anew, the same draws for every model that is compared.

Shapes: N = rows, U = users, numbered from 0, R = draws of all users, S = seeds, M = moments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.metrics import paired
from recsys.metrics.classification import auc

CUT = 5


@dataclass(frozen=True)
class Judge:
    """Rows that all models predict, what is true of them, and how often each draw has each user."""

    truth_N: np.ndarray
    user_N: np.ndarray
    times_RU: np.ndarray

    def compared(self, metrics: list[str], ways: dict[str, list[np.ndarray]]) -> dict[str, dict[str, Any]]:
        """By way (name -> predictions of each seed) and metric: mean, seeds, difference to the first way."""
        found: dict[str, dict[str, Any]] = {way: {} for way in ways}
        for metric in metrics:
            first: Any = None
            for way, each in ways.items():
                values = [METRICS[metric](self, score_N) for score_N in each]
                way_S, way_SR = np.array([v for v, _ in values]), np.stack([v for _, v in values])
                entry = {"mean": way_S.mean(), "spread": way_S.std(ddof=1) if len(way_S) > 1 else None, "seeds": way_S.tolist()}
                if first is None:
                    first = way_S, way_SR
                else:
                    entry["difference"] = paired.difference(way_S, first[0], way_SR, first[1])._asdict()
                found[way][metric] = entry
        return found

    def sums(self, value_N: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum over all rows, and over those of each draw."""
        sum_U = np.bincount(self.user_N, value_N, self.times_RU.shape[1])
        return float(sum_U.sum()), self.times_RU @ sum_U


def mse(judge: Judge, score_N: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean squared error of the probability."""
    (total, total_R), (rows, rows_R) = judge.sums((score_N - judge.truth_N) ** 2), judge.sums(np.ones(len(score_N)))
    return total / rows, total_R / rows_R


def area(judge: Judge, score_N: np.ndarray) -> tuple[float, np.ndarray]:
    return auc(score_N, judge.truth_N), paired.drawn_auc(score_N, judge.truth_N, judge.user_N, judge.times_RU)


def ndcg(judge: Judge, score_N: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over the users of the NDCG of their rows, gains being the truth; users whose truth is all 0 are left out."""
    ndcg_U = np.full(judge.times_RU.shape[1], np.nan)
    discount = 1 / np.log2(np.arange(2, CUT + 2))
    for user in range(len(ndcg_U)):
        mine = judge.user_N == user
        gain = judge.truth_N[mine]
        ideal = np.sort(gain)[::-1][:CUT]
        if gain.any():
            best = gain[np.argsort(-score_N[mine], kind="stable")][:CUT]
            ndcg_U[user] = (best * discount[: len(best)]).sum() / (ideal * discount[: len(ideal)]).sum()
    known_U = ~np.isnan(ndcg_U)
    times_RU = judge.times_RU[:, known_U]
    return float(ndcg_U[known_U].mean()), times_RU @ ndcg_U[known_U] / times_RU.sum(1)


def rank_correlation(judge: Judge, score_N: np.ndarray) -> tuple[float, np.ndarray]:
    """Spearman's, over all rows; the ranks of a draw are those of all rows."""
    x_N, y_N = (np.argsort(np.argsort(value)) / len(value) - 0.5 for value in (score_N, judge.truth_N))
    moments = [judge.sums(value) for value in (np.ones(len(x_N)), x_N, y_N, x_N * x_N, y_N * y_N, x_N * y_N)]

    def correlation(n: Any, x: Any, y: Any, xx: Any, yy: Any, xy: Any) -> Any:
        return (xy / n - x * y / n**2) / ((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)) ** 0.5

    return float(correlation(*(total for total, _ in moments))), correlation(*(total_R for _, total_R in moments))


METRICS: dict[str, Callable[[Judge, np.ndarray], tuple[float, np.ndarray]]] = {
    "MSE": mse,
    "AUC": area,
    f"NDCG@{CUT}": ndcg,
    "rank correlation": rank_correlation,
}
