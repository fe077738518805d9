"""Raw events to the vocabulary of `recsys.columns`, whatever the log calls its columns."""

import polars as pl

from recsys.columns import IN_HISTORY, ITEM_ID, PROPENSITY, ROW, SLOT, TIME_MS, USER_ID, context, label
from recsys.data.source import UNREADABLE, Events

TO_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}


def canonicalise(raw: pl.LazyFrame, *, events: Events) -> pl.LazyFrame:
    """Select canonical columns. Values that cannot be read become null, for the quarantine to find."""
    names = raw.collect_schema()
    unreadable = pl.col(UNREADABLE) if UNREADABLE in names else pl.lit(None, pl.String).alias(UNREADABLE)
    return raw.select(
        pl.col(ROW),
        unreadable,
        _text(events.user).alias(USER_ID),
        _text(events.item).alias(ITEM_ID),
        _time_ms(events, raw).alias(TIME_MS),
        pl.sql_expr(events.history).cast(pl.Boolean).fill_null(False).alias(IN_HISTORY),
        _float(events.propensity, default=float("nan")).alias(PROPENSITY),
        _float(events.slot, default=-1.0).cast(pl.Int32).alias(SLOT),
        *[_float(text, default=float("nan")).alias(label(task)) for task, text in events.labels.items()],
        *[_text(text).alias(context(name)) for name, text in events.context.items()],
    )


def _text(expression: str) -> pl.Expr:
    text = pl.sql_expr(expression).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def _float(expression: str | None, *, default: float) -> pl.Expr:
    if expression is None:
        return pl.lit(default, pl.Float32)
    return pl.sql_expr(expression).cast(pl.Float32, strict=False).fill_null(default)


def _time_ms(events: Events, raw: pl.LazyFrame) -> pl.Expr:
    if events.time is None:
        return pl.col(ROW)
    time = pl.sql_expr(events.time)
    dtype = raw.select(time.alias("time")).collect_schema()["time"]
    if dtype.is_temporal():
        return time.cast(pl.Datetime("ms")).dt.epoch("ms")
    if events.time_unit == "iso":
        return time.str.to_datetime(time_unit="ms", strict=False, time_zone="UTC").dt.epoch("ms")
    if dtype.is_integer() and events.time_unit != "us":
        return time.cast(pl.Int64) * int(TO_MS[events.time_unit])
    return (time.cast(pl.Float64, strict=False) * TO_MS[events.time_unit]).round().cast(pl.Int64, strict=False)
