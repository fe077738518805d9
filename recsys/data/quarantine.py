"""Rows that break a rule are set aside with the reason, never dropped silently."""

import polars as pl

from recsys.columns import ITEM_ID, LABEL_PREFIX, PROPENSITY, ROW, TIME_MS, USER_ID
from recsys.data.source import UNREADABLE

REASON = "reason"
YEAR_2100_MS = 4_102_444_800_000


def mark_bad_rows(events: pl.LazyFrame) -> pl.LazyFrame:
    """Add `reason`: the first rule a row breaks, null for a good row. Duplicates count from their second occurrence."""
    labels = [name for name in events.collect_schema().names() if name.startswith(LABEL_PREFIX)]
    rules = [
        (pl.col(UNREADABLE).is_not_null(), pl.col(UNREADABLE)),
        (pl.col(USER_ID).is_null(), pl.lit("user id is empty")),
        (pl.col(ITEM_ID).is_null(), pl.lit("item id is empty")),
        (pl.col(TIME_MS).is_null(), pl.lit("time is empty or unreadable")),
        (~pl.col(TIME_MS).is_between(0, YEAR_2100_MS), pl.lit("time is before 1970 or after 2100: is time_unit right?")),
        (pl.col(PROPENSITY).is_not_nan() & ~pl.col(PROPENSITY).is_between(0, 1), pl.lit("propensity is outside [0, 1]")),
        *[(pl.col(name).is_infinite(), pl.lit(f"{name} is infinite")) for name in labels],
    ]
    return events.with_columns(pl.coalesce(*[pl.when(broken).then(reason) for broken, reason in rules]).alias(REASON))


def mark_duplicates(events: pl.LazyFrame, *, has_time: bool) -> pl.LazyFrame:
    """Mark rows equal to an earlier one in everything but their place. Without a time column, place is time."""
    ignored = {ROW, UNREADABLE, REASON} | (set() if has_time else {TIME_MS})
    key = [name for name in events.collect_schema().names() if name not in ignored]
    repeated = ~pl.struct(key).is_first_distinct() & pl.col(REASON).is_null()
    return events.with_columns(pl.when(repeated).then(pl.lit("exact duplicate of an earlier row")).otherwise(REASON).alias(REASON))
