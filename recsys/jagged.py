"""Lists of different lengths, stored as one array and its offsets.

Shapes: U = lists (one per user), U1 = U + 1, E = entries of all lists together.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SPARSE = 3  # windows of one width cost a third as much per cell as an index per entry: use them where they are this well filled


@dataclass(frozen=True, eq=False)
class Jagged:
    """List u is `item_E[offset_U1[u] : offset_U1[u + 1]]`; in a timeline or a history the oldest item comes first."""

    item_E: np.ndarray
    offset_U1: np.ndarray

    def __post_init__(self) -> None:
        assert self.item_E.ndim == self.offset_U1.ndim == 1, "item_E and offset_U1 are one-dimensional"
        assert self.offset_U1[0] == 0, "offsets begin at 0"
        assert self.offset_U1[-1] == len(self.item_E), (
            f"offsets end at {self.offset_U1[-1]}, there are {len(self.item_E)} entries"
        )
        assert (np.diff(self.offset_U1) >= 0).all(), "offsets never fall"

    @classmethod
    def from_lists(cls, lists: Iterable[Iterable[int]]) -> Self:
        arrays = [np.fromiter(items, np.int64) for items in lists]
        offset_U1 = np.cumsum([0, *map(len, arrays)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int64), *arrays]), offset_U1)

    def __len__(self) -> int:
        return len(self.offset_U1) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offset_U1)

    @property
    def row_E(self) -> np.ndarray:
        """The list each entry belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def slice(self, begin: int, end: int) -> Self:
        """Lists `begin` to `end`; an `end` past the last list means all that are left."""
        offset_U1 = self.offset_U1[begin : end + 1]
        return type(self)(self.item_E[offset_U1[0] : offset_U1[-1]], offset_U1 - offset_U1[0])

    def take(self, row_N: np.ndarray) -> Self:
        """The lists asked for, in that order."""
        length_N = self.offset_U1[row_N + 1] - self.offset_U1[row_N]
        offset_N1 = np.concatenate([[0], np.cumsum(length_N)])
        return type(self)(gather(self.item_E, self.offset_U1[row_N], length_N), offset_N1)

    def last(self, count: int) -> Self:
        """The last `count` entries of each list, fewer where the list is shorter."""
        assert count >= 0, f"count={count}"
        keep_E = np.arange(len(self.item_E)) >= np.repeat(self.offset_U1[1:] - count, self.lengths)
        return self._keep(keep_E, np.minimum(self.lengths, count))

    def drop_last(self, count: int) -> Self:
        """Each list without its last `count` entries; empty where the list is shorter."""
        assert count >= 0, f"count={count}"
        keep_E = np.arange(len(self.item_E)) < np.repeat(self.offset_U1[1:] - count, self.lengths)
        return self._keep(keep_E, np.maximum(self.lengths - count, 0))

    def _keep(self, keep_E: np.ndarray, length_U: np.ndarray) -> Self:
        return type(self)(self.item_E[keep_E], np.concatenate([[0], np.cumsum(length_U)]))


def ranges(start_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """[start, start + length) of every row, joined: the gather index of jagged slices."""
    end_N = np.cumsum(length_N)
    total = int(end_N[-1]) if len(end_N) else 0
    return np.arange(total) + np.repeat(start_N - (end_N - length_N), length_N)


def gather(value_E: np.ndarray, start_N: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """value_E[start : start + length] of every row, joined, in a new array."""
    width = int(length_N.max(initial=0))
    if not 0 < width <= len(value_E) or width * len(length_N) > SPARSE * int(length_N.sum()):
        return value_E[ranges(start_N, length_N)]
    window_N = np.minimum(start_N, len(value_E) - width)  # the last windows begin earlier, to end within the array
    value_NW = sliding_window_view(value_E, width)[window_N]
    begin_N1, column_W = (start_N - window_N)[:, None], np.arange(width)
    if (length_N == width).all():
        return value_NW.reshape(-1)
    return value_NW[(column_W >= begin_N1) & (column_W < begin_N1 + length_N[:, None])]
