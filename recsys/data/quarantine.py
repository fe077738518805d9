"""Rows that break a rule are set aside with the reason, never dropped silently."""

from collections.abc import Sequence

import polars as pl

from recsys.columns import ITEM_ID, LABEL_PREFIX, PROPENSITY, TIME_MS, USER_ID
from recsys.data.text import UNREADABLE

REASON = "reason"
REPEATED = "_repeated"
YEAR_1971_MS = 31_536_000_000  # seconds read as milliseconds all fall into January or February 1970
YEAR_2100_MS = 4_102_444_800_000


def mark_repeats(raw: pl.LazyFrame, *, columns: Sequence[str]) -> pl.LazyFrame:
    """Add `REPEATED`: whether an earlier row has the same values in `columns`. The first of equal rows stays."""
    key = [*columns, UNREADABLE] if UNREADABLE in raw.collect_schema() else [*columns]
    return raw.with_columns((~pl.struct(key).is_first_distinct()).alias(REPEATED))


def mark_bad_rows(events: pl.LazyFrame, *, has_time: bool) -> pl.LazyFrame:
    """Add `reason`: the first rule a row breaks, null for a good row."""
    labels = [name for name in events.collect_schema().names() if name.startswith(LABEL_PREFIX)]
    ancient = ~pl.col(TIME_MS).is_between(YEAR_1971_MS, YEAR_2100_MS)
    rules = [
        (pl.col(UNREADABLE).is_not_null(), pl.col(UNREADABLE)),
        (pl.col(USER_ID).is_null(), pl.lit("user id is empty")),
        (pl.col(ITEM_ID).is_null(), pl.lit("item id is empty")),
        (~_is_utf8(USER_ID), pl.lit("user id is not UTF-8: is encoding right?")),
        (~_is_utf8(ITEM_ID), pl.lit("item id is not UTF-8: is encoding right?")),
        (pl.col(TIME_MS).is_null(), pl.lit("time is empty or unreadable")),
        (ancient & has_time, pl.lit("time is before 1971 or after 2100: is time_unit right?")),
        (pl.col(PROPENSITY).is_not_nan() & ~pl.col(PROPENSITY).is_between(0, 1), pl.lit("propensity is outside [0, 1]")),
        *[
            (pl.col(name).is_not_nan() & (pl.col(name) != 0) & (pl.col(name) != 1), pl.lit(f"{name} is not 0, 1 or null"))
            for name in labels
        ],
        (pl.col(REPEATED), pl.lit("exact duplicate of an earlier row")),
    ]
    return events.with_columns(pl.coalesce(*[pl.when(broken).then(reason) for broken, reason in rules]).alias(REASON))


def _is_utf8(name: str) -> pl.Expr:
    return ~pl.col(name).str.contains("\ufffd", literal=True)  # what `scan_text` puts for bytes that are not
