"""Raw events to the vocabulary of `recsys.columns`, whatever the log calls its columns."""

import polars as pl

from recsys.columns import IN_HISTORY, ITEM_ID, PROPENSITY, RAW, ROW, SLOT, TIME_MS, USER_ID, WEIGHT, context, label
from recsys.data.labels import value_columns
from recsys.data.moment import time_ms
from recsys.data.source import Events
from recsys.data.text import PLACE, UNREADABLE
from recsys.errors import InputError

MAX_EXACT = 2.0**53  # from here on not every whole number is a float


def canonicalise(raw: pl.LazyFrame, *, events: Events) -> pl.LazyFrame:
    """Select canonical columns and `UNREADABLE`, text as it stands in the log; what cannot be read is null."""
    schema = raw.collect_schema()
    numbers = {label(task): text for task, text in events.plain_labels.items()}
    reasons = [pl.col(UNREADABLE)] if UNREADABLE in schema else []
    for name, text in {**numbers, PROPENSITY: events.propensity, SLOT: events.slot, WEIGHT: events.weight}.items():
        if text is not None:
            lost = pl.sql_expr(text).is_not_null() & pl.sql_expr(text).cast(pl.Float32, strict=False).is_null()
            reasons.append(pl.when(lost).then(pl.lit(f"{name} is not a number")))
    return raw.select(
        pl.col(PLACE).alias(ROW),
        pl.coalesce(reasons).alias(UNREADABLE) if reasons else pl.lit(None, pl.String).alias(UNREADABLE),
        _text(events.user, raw).alias(USER_ID),
        _text(events.item, raw).alias(ITEM_ID),
        (pl.col(PLACE) if events.time is None else time_ms(events.time, events.time_unit, raw)).alias(TIME_MS),
        _in_history(events, raw).alias(IN_HISTORY),
        _number(events.propensity, pl.Float32(), default=float("nan")).alias(PROPENSITY),
        _number(events.slot, pl.Int32(), default=-1).alias(SLOT),
        _number(events.weight, pl.Float32(), default=1.0).alias(WEIGHT),
        *[_number(text, pl.Float32(), default=float("nan")).alias(name) for name, text in numbers.items()],
        *[_number(text, pl.Float32(), default=float("nan")).alias(name) for name, text in value_columns(events.labels).items()],
        *[_text(text, raw).alias(context(name)) for name, text in events.context.items()],
        *_raw_hash(events, raw),
    )


def _raw_hash(events: Events, raw: pl.LazyFrame) -> list[pl.Expr]:
    """`RAW`, where rows that differ in what the config reads can be equal as canonical rows: 4 and 5 stars are both a like."""
    kept = [text for name, text in events.expressions.items() if name != "time" or _is_exact(events, raw)]
    mapped = [pl.sql_expr(text) for text in kept]
    whole = {found.meta.output_name() for found in mapped if found.meta.is_column()}
    lossy = [name for name in events.read_columns if name not in whole]
    return [pl.struct(lossy).hash().alias(RAW)] if lossy else []


def _is_exact(events: Events, raw: pl.LazyFrame) -> bool:
    dtype = dtype_of(pl.sql_expr(str(events.time)), raw)
    return dtype == pl.Datetime("ms") or (dtype.is_integer() and events.time_unit in ("s", "ms", "order"))


def clean_text(expression: str, raw: pl.LazyFrame) -> pl.Expr:
    """Text without white space around it, null where nothing is left; a whole number is written without a fraction."""
    return clean(_text(expression, raw))


def clean(text: pl.Expr) -> pl.Expr:
    stripped = text.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _text(expression: str, raw: pl.LazyFrame) -> pl.Expr:
    """As it stands in the log: of ids and contexts, each distinct text is cleaned once, not each row."""
    value = pl.sql_expr(expression)
    text, dtype = value.cast(pl.String), dtype_of(value, raw)
    if dtype.is_nested():
        raise InputError(
            f"{expression!r} gives {dtype}, where one text or number is needed: `explode` makes each element of a column of "
            "lists a row"
        )
    if dtype.is_float():
        is_whole = (value == value.round()) & (value.abs() < MAX_EXACT)
        text = pl.when(is_whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(text)
    return text


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


def dtype_of(expression: pl.Expr, raw: pl.LazyFrame) -> pl.DataType:
    return raw.select(expression.alias("value")).collect_schema()["value"]
