"""How far the values of served lists have moved from those at export. V = values, C = bins."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from serving.bundle.bundle import Array

WINDOW = 10_000  # values; what is compared are the last one to two windows
MIN_VALUES = 1_000  # fewer say little: with C bins the index of an unchanged distribution is around (C - 1) / values
CHUNK = 500  # values counted at a time
FLOOR = 1e-4  # of a share, since an empty bin would make the index infinite


class Drift:
    """Population stability index between a reference histogram and what came lately.

    sum over bins of (p - q) * ln(p / q): Kullback-Leibler divergence in both directions (Jeffreys 1946), in credit scoring
    known as the population stability index, with 0.1 and 0.25 as customary marks of a small and a large shift; Yurdakul
    2018, Statistical Properties of Population Stability Index, https://scholarworks.wmich.edu/dissertations/3208. Differs from
    the textbook: shares are floored at 1e-4.
    """

    def __init__(self, edges: Sequence[float], share: Sequence[float]) -> None:
        """`edges`: between the bins, ascending; a value on one belongs to the bin below. `share`: of each bin, one more."""
        if len(edges) != len(share) - 1 or any(low > high for low, high in pairwise(edges)):
            raise ValueError(f"{len(edges)} edges for {len(share)} shares: give ascending edges, one less than shares")
        self._edges = np.asarray(edges, np.float64)
        self._reference_C = np.asarray(share, np.float64)
        self._pending: list[float] = []
        self._now_C = np.zeros(len(share))
        self._before_C = np.zeros(len(share))

    def add(self, values: list[float]) -> bool:
        """Whether the index may have changed."""
        self._pending += values
        if len(self._pending) < CHUNK:
            return False
        bin_V = self._edges.searchsorted(self._pending, side="left")
        self._now_C += np.bincount(bin_V, minlength=len(self._now_C))
        self._pending.clear()
        if self._now_C.sum() >= WINDOW:
            self._before_C, self._now_C = self._now_C, np.zeros_like(self._now_C)
        return True

    def index(self) -> float | None:
        """None as long as too few values came."""
        count_C = self._now_C + self._before_C
        total = count_C.sum()
        return None if total < MIN_VALUES else stability_index(self._reference_C, count_C / total)


def stability_index(reference_C: Array, share_C: Array) -> float:
    q_C, p_C = np.maximum(reference_C, FLOOR), np.maximum(share_C, FLOOR)
    return float(((p_C - q_C) * np.log(p_C / q_C)).sum())
