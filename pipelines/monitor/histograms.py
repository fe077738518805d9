"""Columns of a day as histograms whose bins mean the same on every day. Shapes: N = rows of a chunk."""

from collections import Counter
from collections.abc import Iterator

import polars as pl

from pipelines.monitor.arrived import Bins
from recsys.columns import IN_HISTORY, PROPENSITY, SLOT, TIME_MS, WEIGHT, context, label
from recsys.data.labels import value_columns
from recsys.data.source import Events

NONE, OTHER = "none", "other"
NUM_VALUES = 100  # of a category, the most frequent ones
HOUR_MS = 3_600_000


def column_bins(events: Events) -> dict[str, pl.Expr]:
    """Histogram -> the bin of a canonical row, as text."""
    found = {"history": pl.col(IN_HISTORY).cast(pl.String)}
    if events.has_time and events.time_unit != "date":
        found["hour of day"] = (pl.col(TIME_MS) // HOUR_MS % 24).cast(pl.String)
    found |= {f"label {task}": _category(pl.col(label(task)).fill_nan(None).cast(pl.Int8)) for task in events.plain_labels}
    found |= {f"label {name.removeprefix('value_')}": powers_of_two(name) for name in value_columns(events.labels)}
    found |= {f"context {name}": _category(pl.col(context(name))) for name in events.context}
    if events.slot is not None:
        found["slot"] = _category(pl.col(SLOT))
    for name, text in ((WEIGHT, events.weight), (PROPENSITY, events.propensity)):
        found |= {name: powers_of_two(name)} if text is not None else {}
    return found


def count(rows: pl.DataFrame, bins: dict[str, pl.Expr]) -> dict[str, Counter[str]]:
    binned = rows.select(**bins)
    return {name: Counter(dict(binned[name].value_counts().iter_rows())) for name in binned.columns}


def powers_of_two(name: str) -> pl.Expr:
    """The bin of a number of any scale: its sign and the power of two below it; `none` where there is none."""
    value = pl.col(name).cast(pl.Float64)
    power = value.abs().log(2).floor().cast(pl.Int32, strict=False).cast(pl.String)
    sign = pl.when(value < 0).then(pl.lit("-2^")).otherwise(pl.lit("2^"))
    text = pl.when(value == 0).then(pl.lit("0")).otherwise(sign + power)
    return pl.when(value.is_nan() | value.is_null()).then(pl.lit(NONE)).otherwise(text)


def per_id(counts: pl.Series) -> Bins:
    """How many ids have 1, 2 to 3, 4 to 7, ... rows, by the lower end."""
    power = counts.cast(pl.Float64).log(2).floor().cast(pl.Int32)
    return {str(2**each): number for each, number in sorted(power.value_counts().iter_rows())}


def shortened(found: Counter[str]) -> Bins:
    """The most frequent values, and the rest as one; equals by their names, so that the same rows give the same."""
    ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(number for _, number in ordered[NUM_VALUES:])
    return {**dict(ordered[:NUM_VALUES]), **({OTHER: rest} if rest else {})}


def aligned(before: list[Bins], after: Bins) -> tuple[list[int], list[int]]:
    """Two lists of counts over the same bins: the sum of the days before, and the day.

    Where values of a category were cut off on any day, a bin that the days before do not name counts as one of the others.
    """
    total = Counter[str]()
    for each in before:
        total.update(each)
    names = list(total)
    if OTHER in total or OTHER in after:
        names = [name for name in names if name != OTHER]
        of_names = set(names)
        rest = (sum(number for name, number in bins.items() if name not in of_names) for bins in (total, after))
        old_rest, new_rest = rest
        return [*(total[name] for name in names), old_rest], [*(after.get(name, 0) for name in names), new_rest]
    names += [name for name in after if name not in total]
    return [total[name] for name in names], [after.get(name, 0) for name in names]


def feature_bins(table: pl.DataFrame, counts: pl.DataFrame, owner: str) -> Iterator[tuple[str, Bins]]:
    """Histograms of a table's features over the rows of the day. `counts` has `id` and `rows`; lists count each element."""
    joined = counts.join(table, on="id", how="left")
    for column in [name for name in table.columns if name.startswith("feature_")]:
        values = joined.select("rows", value=pl.col(column))
        if isinstance(values.schema["value"], pl.List):
            values = values.explode("value", empty_as_null=True)
        summed = values.group_by(pl.col("value").fill_null(NONE)).agg(pl.col("rows").sum())
        yield f"{owner} feature {column.removeprefix('feature_')}", shortened(Counter(dict(summed.iter_rows())))


def _category(value: pl.Expr) -> pl.Expr:
    return value.cast(pl.String).fill_null(NONE)
