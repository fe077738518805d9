"""User and item tables of a dataset: row number = dense id, features as dense codes."""

from dataclasses import dataclass

import polars as pl

from recsys.columns import CREATED_MS, EVENT_TIME_MS, FIRST_ID, ROW
from recsys.data.before import Before
from recsys.data.canonical import clean_text, dtype_of
from recsys.data.moment import time_ms
from recsys.data.rules import REASON
from recsys.data.source import Table
from recsys.data.text import PLACE, UNREADABLE
from recsys.data.vocabulary import ARRIVAL, VALUE, encode, vocabulary

KEY = "id"


@dataclass(frozen=True)
class Feature:
    """A categorical feature. `owner` is user, item or context; `size` counts padding and unknown."""

    name: str
    owner: str
    values: pl.Series
    multi_valued: bool = False

    @property
    def size(self) -> int:
        return len(self.values) + FIRST_ID


def canonical_table(raw: pl.LazyFrame, *, table: Table) -> pl.LazyFrame:
    """Select `ROW`, the id, features as text or lists of text, the title, and `reason`, which is null for a good row."""
    schema = raw.collect_schema()
    unreadable = pl.col(UNREADABLE) if UNREADABLE in schema else pl.lit(None, pl.String)
    columns = [clean_text(table.id, raw).alias(KEY)]
    for name, text in table.features.items():
        dtype = dtype_of(pl.sql_expr(text), raw)
        value = _clean_list(text) if isinstance(dtype, pl.List | pl.Array) else clean_text(text, raw)
        columns.append(value.alias(f"feature_{name}"))
    if table.title is not None:
        columns.append(clean_text(table.title, raw).alias("title"))
    reason = pl.coalesce(unreadable, pl.when(clean_text(table.id, raw).is_null()).then(pl.lit("id is empty")))
    if table.event_time is not None:
        moment = time_ms(table.event_time, table.time_unit, raw)
        columns += [moment.alias(EVENT_TIME_MS)]
        reason = pl.coalesce(reason, pl.when(moment.is_null()).then(pl.lit("event_time is empty or unreadable")))
        if table.created is not None:
            columns += [time_ms(table.created, table.time_unit, raw).alias(CREATED_MS)]
    return raw.select(pl.col(PLACE).alias(ROW), *columns, reason.alias(REASON))


def one_row_per_id(rows: pl.LazyFrame, *, changes: bool) -> pl.LazyFrame:
    """Of every column the first value of an id that is not null, in the order of the source; the newest row if they change."""
    if changes:
        times = [name for name in (EVENT_TIME_MS, CREATED_MS) if name in rows.collect_schema()]
        newest = rows.sort(times, maintain_order=True).unique(KEY, keep="last", maintain_order=True)
        return newest.drop(ROW, REASON, *times)
    return rows.drop(ROW, REASON).group_by(KEY, maintain_order=True).agg(pl.all().drop_nulls().first())


def encode_table(
    ids: pl.DataFrame,
    key: pl.Series,
    owner: str,
    rows: pl.DataFrame | None,
    before: Before,
    versions: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, list[Feature]]:
    """The table of dense ids: two reserved rows, then `ids` in order, with features encoded. Missing ones are unknown.

    `key` is the id under which `rows` has each of `ids`, the same but for sessions.
    """
    reserved = ids.clear(FIRST_ID)
    table = pl.DataFrame({f"{owner}_id": pl.concat([reserved[VALUE], ids[VALUE]])})
    if rows is None:
        return table, []
    keys = pl.concat([reserved[VALUE], key]).alias(KEY)
    joined = table.with_columns(keys).join(rows, on=KEY, how="left", maintain_order="left").drop(KEY)
    features = []
    for column in [name for name in joined.columns if name.startswith("feature_")]:
        is_list = isinstance(joined[column].dtype, pl.List)
        values = joined.select(pl.col(column).alias(VALUE), pl.concat([reserved[ARRIVAL], ids[ARRIVAL]]))
        if versions is not None:
            values = versions.select(pl.col(column).alias(VALUE), pl.lit(0).alias(ARRIVAL))
        flat = values.drop_nulls(VALUE).explode(VALUE, empty_as_null=False) if is_list else values
        known = vocabulary(flat, before.vocabulary(owner, column.removeprefix("feature_")))
        joined = joined.with_columns(
            (_encode_lists(joined[column], known) if is_list else encode(joined[column], known)).alias(column)
        )
        features.append(Feature(column.removeprefix("feature_"), owner, known, is_list))
    return joined, features


def encode_versions(rows: pl.DataFrame, key: pl.Series, features: list[Feature]) -> pl.DataFrame:
    """All rows of a slowly changing table whose id is known: dense id, times, and the code of every feature by its name."""
    dense = pl.DataFrame({KEY: key, "dense": pl.int_range(FIRST_ID, FIRST_ID + len(key), dtype=pl.Int32, eager=True)})
    codes = [encode(rows[f"feature_{feature.name}"], feature.values).alias(feature.name) for feature in features]
    times = [name for name in (EVENT_TIME_MS, CREATED_MS) if name in rows.columns]
    known = rows.select(KEY, *times).with_columns(codes).join(dense, on=KEY, how="inner", maintain_order="left_right")
    return known.drop(KEY).rename({"dense": KEY})


def _clean_list(expression: str) -> pl.Expr:
    """Each element stripped; empty ones and repeats go, and a list left without any is null."""
    element = pl.element().cast(pl.String).str.strip_chars()
    values = (
        pl.sql_expr(expression).cast(pl.List(pl.String)).list.eval(element.filter(element != "").unique(maintain_order=True))
    )
    return pl.when(values.list.len() > 0).then(values)


def _encode_lists(values: pl.Series, known: pl.Series) -> pl.Series:
    """Encode each list; a missing one becomes [UNKNOWN_ID]."""
    lists = pl.DataFrame({"row": pl.int_range(len(values), eager=True), "value": values})
    flat = lists.explode("value", empty_as_null=True)
    return flat.select("row", code=encode(flat["value"], known)).group_by("row", maintain_order=True).agg("code")["code"]
