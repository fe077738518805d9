"""Positions of events in their user's timeline."""

import numpy as np
import polars as pl

from recsys.columns import IN_HISTORY, POSITION, TIME_MS, USER


def positions(rows: pl.DataFrame, *, ties: str, length_before: np.ndarray | None = None) -> pl.DataFrame:
    """Add `position`: the length of the history an example may see. Rows are in user order, a user's in timeline order.

    A row sees the timeline events before it. With ties "simultaneous" it does not see those of its own moment, so that clicks
    on one page do not see each other. `length_before` (by dense user id): events of the timeline before these rows.
    """
    user_N, counts_N = rows[USER].to_numpy(), rows[IN_HISTORY].to_numpy()
    before_N = np.cumsum(counts_N) - counts_N
    first_N = _run_starts(user_N)
    position_N = before_N - before_N[first_N]
    if ties == "simultaneous":
        position_N = position_N[_run_starts(user_N, rows[TIME_MS].to_numpy())]
    if length_before is not None:
        position_N = position_N + length_before[user_N]
    return rows.with_columns(pl.Series(POSITION, position_N.astype(np.int32)))


def _run_starts(*key_N: np.ndarray) -> np.ndarray:
    """For every row the first row of its run of equal keys."""
    begins_N = np.zeros(len(key_N[0]), bool)
    begins_N[:1] = True
    for key in key_N:
        begins_N[1:] |= key[1:] != key[:-1]
    return np.maximum.accumulate(np.where(begins_N, np.arange(len(begins_N)), 0))
