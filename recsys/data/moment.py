"""Moments of time, whatever the log writes them as, in milliseconds since 1970; and which unit a log uses."""

import polars as pl

from recsys.data.source import Events
from recsys.errors import InputError

YEAR_1971_MS = 31_536_000_000  # seconds read as milliseconds all fall into January or February 1970
YEAR_2100_MS = 4_102_444_800_000
MS_PER = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6, "order": 1.0}
LARGEST_S = 2**53  # far beyond any year, and times 1000 still a 64-bit number
ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
)  # tried in this order on every value; without an offset: UTC


def time_ms(expression: str, unit: str, raw: pl.LazyFrame) -> pl.Expr:
    """Milliseconds since 1970, or whatever number orders the events where the log has no moments; null if unreadable.

    `unit` must not be "auto": the caller has put there what `infer_time_unit` found.
    """
    time, dtype = pl.sql_expr(expression), _dtype(expression, raw)
    if dtype.is_temporal():
        return time.dt.epoch("ms")
    text = time.str.strip_chars() if dtype == pl.String else time.cast(pl.Int64, strict=False).cast(pl.String)
    match unit:
        case "auto":
            raise AssertionError("time_unit auto is not resolved")
        case "iso" if dtype == pl.String:
            return _iso_ms(text)
        case "iso":
            raise InputError(
                f"time = {expression!r} gives {dtype}, which time_unit iso does not fit: declare s, ms, us, ns, date or order"
            )
        case "date":
            return _date_ms(text)
        case _:
            return _number_ms(text if dtype == pl.String else time, dtype, MS_PER[unit])


def infer_time_unit(sample: pl.DataFrame, events: Events) -> str:
    """The unit of `events.time`: what is declared, or where that is "auto" what the first rows show. Raises InputError.

    A number that is a moment of the years 1971 to 2100 in one unit is so in no other. All that are must share the unit, and
    they must be half of the values or more; the others tell nothing and go to quarantine.
    """
    if events.time_unit != "auto":
        return events.time_unit
    if events.time is None:
        return "order"
    dtype = _dtype(events.time, sample.lazy())
    if dtype.is_temporal():
        return "date" if dtype == pl.Date else "iso"
    value = pl.sql_expr(events.time)
    found = sample.select(value=value, unit=_unit_of(value, dtype)).filter(pl.col("value").is_not_null())
    examples = found.drop_nulls().unique("unit", keep="first", maintain_order=True)
    where = f"{events.path}: time = {events.time!r}"
    if len(examples) > 1:
        (first, unit), (second, other) = examples.rows()[:2]
        raise InputError(
            f"{where} holds both {first!r}, which is in {unit}, and {second!r}, which is in {other}: declare time_unit, so "
            "that rows of another unit go to quarantine, or bring them to one with an expression"
        )
    unknown = found.filter(pl.col("unit").is_null())
    if examples.is_empty() or len(unknown) * 2 > len(found):
        example = repr(unknown["value"][0]) if len(unknown) else "no value"
        raise InputError(f"{where} holds {example}, which is no moment in s, ms, us, ns, iso or date: declare time_unit")
    unit = str(examples["unit"][0])
    days_only = unit == "iso" and found["value"].str.strip_chars().str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$").all()
    return "date" if days_only else unit


def _unit_of(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """The one unit in which a value is a moment of the years 1971 to 2100, null where there is none."""
    text = value.str.strip_chars() if dtype == pl.String else value.cast(pl.Int64, strict=False).cast(pl.String)
    number = (text if dtype == pl.String else value).cast(pl.Float64, strict=False)
    units = [
        pl.when(number.is_between(YEAR_1971_MS / MS_PER[unit], YEAR_2100_MS / MS_PER[unit])).then(pl.lit(unit))
        for unit in ("s", "ms", "us", "ns")
    ]
    date = pl.when(number.is_not_null() & _date_ms(text).is_between(YEAR_1971_MS, YEAR_2100_MS)).then(pl.lit("date"))
    iso = [pl.when(_iso_ms(text).is_not_null()).then(pl.lit("iso"))] if dtype == pl.String else []
    return pl.coalesce(*units, date, *iso)


def _number_ms(time: pl.Expr, dtype: pl.DataType, scale: float) -> pl.Expr:
    """Whole numbers stay exact; those finer than a millisecond are floored to the one they fall into."""
    rounded = (time.cast(pl.Float64, strict=False) * scale).round().cast(pl.Int64, strict=False)
    if dtype.is_float():
        return rounded
    whole = time.cast(pl.Int64, strict=False)
    if scale < 1:
        whole = whole // round(1 / scale)
    elif scale > 1:
        whole = whole.clip(-LARGEST_S, LARGEST_S) * int(scale)
    return whole if dtype.is_integer() else pl.coalesce(whole, rounded)


def _date_ms(text: pl.Expr) -> pl.Expr:
    """Midnight, in UTC, of days such as 2024-05-01 or 20240501."""
    days = [text.str.to_date(form, strict=False) for form in ("%Y-%m-%d", "%Y%m%d")]
    return pl.coalesce(*days).dt.epoch("ms")


def _iso_ms(text: pl.Expr) -> pl.Expr:
    """The format is found for each value by itself, so that the result does not hang on which row comes first."""
    text = text.str.replace(r"^([0-9-]+)T", "$1 ").str.replace(r" ?(Z|UTC)$", "+00:00")
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", time_unit="ms", time_zone="UTC", strict=False).dt.epoch("ms")
    plain = [text.str.to_datetime(form, time_unit="ms", strict=False).dt.epoch("ms") for form in ISO_FORMATS]
    return pl.coalesce(zoned, *plain)


def _dtype(expression: str, raw: pl.LazyFrame) -> pl.DataType:
    """The type of the time. Raises InputError for one that cannot be a time."""
    dtype = raw.select(value=pl.sql_expr(expression)).collect_schema()["value"]
    if not (dtype == pl.Date or isinstance(dtype, pl.Datetime) or dtype.is_numeric() or dtype == pl.String):
        raise InputError(f"time = {expression!r} gives {dtype}, not a moment: use a timestamp, a date, a number or text")
    return dtype
