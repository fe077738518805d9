"""Order a user's events in time and give every event its position in the user's timeline."""

import polars as pl

from recsys.columns import IN_HISTORY, POSITION, ROW, TIME_MS, USER
from recsys.data.split import RANK


def order_events(events: pl.LazyFrame, *, ties: str) -> pl.LazyFrame:
    """Sort by user, time and place in the file; add `rank` (timeline events before, in that order) and `position`.

    `position` is the length of the history an example may see. With ties "simultaneous" it leaves out events of the same
    moment, so that clicks on one page do not see each other.
    """
    before = pl.col(IN_HISTORY).cast(pl.Int64).cum_sum().over(USER) - pl.col(IN_HISTORY).cast(pl.Int64)
    ordered = events.sort(USER, TIME_MS, ROW).with_columns(before.alias(RANK))
    position = pl.col(RANK).min().over(USER, TIME_MS) if ties == "simultaneous" else pl.col(RANK)
    return ordered.with_columns(position.cast(pl.Int32).alias(POSITION))
