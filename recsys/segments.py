"""Columns that lie in several files.

Shapes: E = timeline events of all users, U = users, U1 = U + 1, R = rows of one file, N = rows asked for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

MERGED_AT_ONCE = 1 << 22  # rows: bounds what merging needs beside its result


class Column(NDArrayOperatorsMixin):
    """A column whose rows count through several files. Indexing gathers, `np.asarray` and arithmetic copy the whole."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts = parts
        self._begin = np.cumsum([0, *map(len, parts)])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return int(self._begin[-1])

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """The rows of a slice or of an array of row numbers from 0 on; fastest where these ascend."""
        row_N = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        if (row_N[1:] < row_N[:-1]).any():
            order_N = np.argsort(row_N)
            value_N = np.empty(len(row_N), self.dtype)
            value_N[order_N] = self[row_N[order_N]]
            return value_N
        cuts = np.searchsorted(row_N, self._begin)
        assert cuts[-1] - cuts[0] == len(row_N), f"rows {row_N[[0, -1]]} of {len(self)}"
        cut = zip(self._parts, self._begin, cuts[:-1], cuts[1:], strict=False)
        return np.concatenate([part[row_N[low:high] - begin] for part, begin, low, high in cut])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._parts, dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(i) if isinstance(i, Column) else i for i in inputs), **options)


def merged(segments: Sequence[tuple[np.ndarray, np.ndarray]], start_U: np.ndarray) -> np.ndarray:
    """The values of (user_R, value_R) pairs, each sorted by user, with a user's rows of all segments one after the other."""
    value_E = np.empty(sum(len(value_R) for _, value_R in segments), segments[0][1].dtype)
    next_U = start_U.copy()  # where a user's next row goes
    every_U1 = np.arange(len(start_U) + 1, dtype=np.int32)
    for user_R, value_R in segments:
        first_U1 = np.searchsorted(user_R, every_U1)
        shift_U = next_U - first_U1[:-1]
        for begin in range(0, len(user_R), MERGED_AT_ONCE):
            part = slice(begin, begin + MERGED_AT_ONCE)
            value_E[shift_U[user_R[part]] + np.arange(begin, begin + len(user_R[part]))] = value_R[part]
        next_U += np.diff(first_U1)
    assert np.array_equal(next_U, np.append(start_U[1:], len(value_E))), "the segments are not those of the user table"
    return value_E
