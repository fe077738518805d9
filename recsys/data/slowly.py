"""Values that change slowly, such as a price or a home town, joined to each row as they were known at its time."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recsys.columns import ASOF_PREFIX, CREATED_MS, EVENT_TIME_MS, TIME_MS
from recsys.data.tables import KEY

_KNOWN, _RANK, _PLACE = "_known", "_rank", "_place"


def slow_table(ids: Path, owner: str) -> Path:
    """The versions of a slowly changing table: dense id, times, feature codes."""
    return ids / f"slow-{owner}.arrow"


def as_of(rows: pl.LazyFrame, table: pl.LazyFrame, *, on: str, features: Sequence[str]) -> pl.LazyFrame:
    """Add asof_FEATURE to each row: the value that held for the row's `on` at its time, as far as it was known by then.

    A row at time t sees the table's rows of its id with event_time <= t and created <= t. Of these the newest event_time
    counts, then the newest created, which makes it a correction, then the last in the table. Both bounds take in t itself:
    where event_time is the moment of an event that must not see the value, add 1 ms. Null where nothing was known.
    The table has `id` of the type of `on`, and `event_time_ms` without nulls. Rows keep their order.
    """
    known = _known_from(table, features)
    names = {name: ASOF_PREFIX + name for name in features}
    return (
        rows.with_row_index(_PLACE)
        .sort(TIME_MS)
        .join_asof(
            known.rename(names), left_on=TIME_MS, right_on=_KNOWN, by_left=on, by_right=KEY,
            strategy="backward", check_sortedness=False,
        )
        .sort(_PLACE)
        .drop(_PLACE, _KNOWN, strict=False)
    )  # fmt: skip


def _known_from(table: pl.LazyFrame, features: Sequence[str]) -> pl.LazyFrame:
    """One row per id and moment from which on other values count, in order of time.

    A row enters the picture at the later of its two times. From then on the best row that has entered counts, so that a late
    correction hides nothing before it arrives, and a late row about the distant past hides nothing at all.
    """
    has_created = CREATED_MS in table.collect_schema()
    created = pl.coalesce(CREATED_MS, EVENT_TIME_MS) if has_created else pl.col(EVENT_TIME_MS)
    ranked = (
        table.select(KEY, EVENT_TIME_MS, *features, created.alias(CREATED_MS))
        .sort(EVENT_TIME_MS, CREATED_MS, maintain_order=True)
        .with_row_index(_RANK)
    )
    best = (
        ranked.select(KEY, pl.max_horizontal(EVENT_TIME_MS, CREATED_MS).alias(_KNOWN), _RANK)
        .sort(_KNOWN)
        .with_columns(pl.col(_RANK).cum_max().over(KEY))
        .unique([KEY, _KNOWN], keep="last", maintain_order=True)
    )
    return best.join(ranked.select(_RANK, *features), on=_RANK, how="left", maintain_order="left").drop(_RANK)
