"""Where a value stands among others, from counts that merge exactly. Shapes: N = rows, K = (group, bin) pairs with a row."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BIN_SHIFT = 16  # bits of a 32-bit float that a bin leaves open: 128 bins per power of two remain, each under 0.8 % wide
GROUP_SHIFT = 31 - BIN_SHIFT  # bits of a bin of a number that is not negative


@dataclass(frozen=True)
class Histogram:
    """Rows per group and bin. Whole numbers only, so that no order of adding up can change it.

    The bins are the upper bits of the 32-bit float: as wide as their values are large, and alike on every machine.
    """

    key_K: np.ndarray  # group and bin in one number, ascending
    count_K: np.ndarray

    @classmethod
    def of(cls, value_N: np.ndarray, group_N: np.ndarray) -> "Histogram":
        key_K, count_K = np.unique(_keys(value_N, group_N)[_is_known(value_N, group_N)], return_counts=True)
        return cls(key_K, count_K)

    @classmethod
    def merge(cls, parts: Iterable["Histogram"]) -> "Histogram":
        all_parts = [cls(np.empty(0, np.int64), np.empty(0, np.int64)), *parts]
        key_K, place = np.unique(np.concatenate([part.key_K for part in all_parts]), return_inverse=True)
        count_K = np.zeros(len(key_K), np.int64)
        np.add.at(count_K, place, np.concatenate([part.count_K for part in all_parts]))
        return cls(key_K, count_K)

    def ranks(self, value_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
        """Share of the group's rows below the value, half of those in its own bin counted; NaN for a group without rows."""
        below_K = np.concatenate([[0], np.cumsum(self.count_K)])
        key_N = np.where(_is_known(value_N, group_N), _keys(value_N, group_N), -1)
        distinct, place_N = np.unique(key_N, return_inverse=True)
        group = distinct >> GROUP_SHIFT
        first, last = (np.searchsorted(self.key_K, edge << GROUP_SHIFT) for edge in (group, group + 1))
        lower, upper = np.searchsorted(self.key_K, distinct), np.searchsorted(self.key_K, distinct, side="right")
        size = (below_K[last] - below_K[first]).astype(np.float64)
        size[(distinct < 0) | (size == 0)] = np.nan
        rank = ((below_K[lower] + below_K[upper]) / 2 - below_K[first]) / size
        return rank.astype(np.float32)[place_N]


def _is_known(value_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    return (value_N >= 0) & np.isfinite(value_N) & ~np.isnan(group_N)


def _keys(value_N: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Ascending in the value within a group. Adding 0 makes one number of 0 and -0."""
    bin_N = (value_N + np.float32(0)).view(np.uint32) >> BIN_SHIFT
    group_bits_N = (group_N + np.float32(0)).view(np.uint32)
    return group_bits_N.astype(np.int64) << GROUP_SHIFT | bin_N.astype(np.int64)
