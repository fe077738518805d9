"""Arithmetic on runs: rows of a shard lie sorted by user, time and row, so that what belongs together stands together.

Shapes: N = rows, R = runs.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from recsys.columns import IN_HISTORY, ITEM, USER

SESSION = "session"  # number of a user's session, where the log is cut into sessions; each is a timeline of its own


def unit(rows: pl.LazyFrame) -> pl.Expr:
    """Number of the timeline that a row belongs to: of the user, or of the session once the log is cut into sessions."""
    keys = [name for name in (USER, SESSION) if name in rows.collect_schema()]
    is_other = pl.any_horizontal([pl.col(name) != pl.col(name).shift() for name in keys])
    return is_other.fill_null(False).cum_sum().cast(pl.Int64)


def pair(rows: pl.LazyFrame) -> pl.Expr:
    """One number for (timeline, item) of a timeline event, null for any other row."""
    return pl.when(IN_HISTORY).then(unit(rows) * 2**32 + pl.col(ITEM).cast(pl.Int64))


def whole(function: Callable[..., np.ndarray], *columns: str | pl.Expr, dtype: type[pl.DataType]) -> pl.Expr:
    """Columns as arrays through a function that needs all rows at once, such as one that looks at neighbours."""

    def on_arrays(columns: Sequence[pl.Series]) -> pl.Series:
        return pl.Series(function(*(column.to_numpy() for column in columns)), dtype=dtype)

    return pl.map_batches(columns, on_arrays, return_dtype=dtype)


def begins(*key_N: np.ndarray) -> np.ndarray:
    """Whether a row is the first of a run of equal keys."""
    first_N = np.zeros(len(key_N[0]), bool)
    first_N[:1] = True
    for key in key_N:
        first_N[1:] |= key[1:] != key[:-1]
    return first_N


def starts(*key_N: np.ndarray) -> np.ndarray:
    """For every row the first row of its run of equal keys."""
    return np.maximum.accumulate(np.where(begins(*key_N), np.arange(len(key_N[0])), 0))


def sums(values_N: np.ndarray, run_N: np.ndarray) -> np.ndarray:
    """Sum per run, `run_N` counting the runs from 0."""
    return np.bincount(run_N, weights=values_N).astype(np.int64)
