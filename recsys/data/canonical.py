"""Raw events to the vocabulary of `recsys.columns`, whatever the log calls its columns."""

import polars as pl

from recsys.columns import IN_HISTORY, ITEM_ID, PROPENSITY, ROW, SLOT, TIME_MS, USER_ID, context, label
from recsys.data.quarantine import REPEATED
from recsys.data.source import Events
from recsys.data.text import PLACE, UNREADABLE
from recsys.errors import InputError

TO_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}
MAX_EXACT = 2.0**53  # from here on not every whole number is a float
ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
)  # tried in this order on every value; without an offset: UTC


def canonicalise(raw: pl.LazyFrame, *, events: Events) -> pl.LazyFrame:
    """Select canonical columns, `UNREADABLE` and `REPEATED`; what cannot be read is null, for the quarantine to find."""
    schema = raw.collect_schema()
    numbers = {label(task): text for task, text in events.labels.items()}
    reasons = [pl.col(UNREADABLE)] if UNREADABLE in schema else []
    for name, text in {**numbers, PROPENSITY: events.propensity, SLOT: events.slot}.items():
        if text is not None:
            lost = pl.sql_expr(text).is_not_null() & pl.sql_expr(text).cast(pl.Float32, strict=False).is_null()
            reasons.append(pl.when(lost).then(pl.lit(f"{name} is not a number")))
    return raw.select(
        pl.col(PLACE).alias(ROW),
        pl.coalesce(reasons).alias(UNREADABLE) if reasons else pl.lit(None, pl.String).alias(UNREADABLE),
        pl.col(REPEATED),
        clean_text(events.user, raw).alias(USER_ID),
        clean_text(events.item, raw).alias(ITEM_ID),
        _time_ms(events, raw).alias(TIME_MS),
        _in_history(events, raw).alias(IN_HISTORY),
        _number(events.propensity, pl.Float32(), default=float("nan")).alias(PROPENSITY),
        _number(events.slot, pl.Int32(), default=-1).alias(SLOT),
        *[_number(text, pl.Float32(), default=float("nan")).alias(name) for name, text in numbers.items()],
        *[clean_text(text, raw).alias(context(name)) for name, text in events.context.items()],
    )


def clean_text(expression: str, raw: pl.LazyFrame) -> pl.Expr:
    """Text without white space around it, null where nothing is left; a whole number is written without a fraction."""
    value = pl.sql_expr(expression)
    text = value.cast(pl.String).str.strip_chars()
    if dtype_of(value, raw).is_float():
        is_whole = (value == value.round()) & (value.abs() < MAX_EXACT)
        text = pl.when(is_whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
    return pl.when(text != "").then(text)


def _number(expression: str | None, dtype: pl.DataType, *, default: float) -> pl.Expr:
    if expression is None:
        return pl.lit(default, dtype)
    return pl.sql_expr(expression).cast(dtype, strict=False).fill_null(default).fill_nan(default)


def _in_history(events: Events, raw: pl.LazyFrame) -> pl.Expr:
    flag = pl.sql_expr(events.history)
    dtype = dtype_of(flag, raw)
    if not (dtype.is_numeric() or dtype == pl.Boolean):
        raise InputError(f"history = {events.history!r} gives {dtype}, not a truth value: write a condition such as click = 1")
    return flag.cast(pl.Boolean).fill_null(False)


def _time_ms(events: Events, raw: pl.LazyFrame) -> pl.Expr:
    """Milliseconds since 1970, or whatever number orders the events where the log has no moments."""
    if events.time is None:
        return pl.col(PLACE)
    time = pl.sql_expr(events.time)
    dtype = dtype_of(time, raw)
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return time.dt.epoch("ms")
    if dtype.is_temporal() or not (dtype.is_numeric() or dtype == pl.String):
        raise InputError(f"time = {events.time!r} gives {dtype}, not a moment: use a timestamp, a date, a number or text")
    if events.time_unit == "iso":
        if dtype != pl.String:
            raise InputError(
                f"time = {events.time!r} gives {dtype}, which time_unit iso does not fit: declare s, ms, us or order"
            )
        return _iso_ms(time)
    scale = 1.0 if events.time_unit == "order" else TO_MS[events.time_unit]
    if dtype.is_integer() and scale >= 1:
        return time.cast(pl.Int64, strict=False) * int(scale)
    return (time.cast(pl.Float64, strict=False) * scale).round().cast(pl.Int64, strict=False)


def _iso_ms(time: pl.Expr) -> pl.Expr:
    """The format is found for each value by itself, so that the result does not hang on which row comes first."""
    text = time.str.strip_chars().str.replace(r"^([0-9-]+)T", "$1 ").str.replace(r" ?(Z|UTC)$", "+00:00")
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="ms", time_zone="UTC", strict=False).dt.epoch("ms")
    plain = [text.str.to_datetime(form, time_unit="ms", strict=False).dt.epoch("ms") for form in ISO_FORMATS]
    return pl.coalesce(zoned, *plain)


def dtype_of(expression: pl.Expr, raw: pl.LazyFrame) -> pl.DataType:
    return raw.select(expression.alias("value")).collect_schema()["value"]
