"""User and item tables of a dataset: row number = dense id, features as dense codes."""

from dataclasses import dataclass

import polars as pl

from recsys.columns import FIRST_ID, ROW
from recsys.data.canonical import clean_text, dtype_of
from recsys.data.quarantine import REASON
from recsys.data.source import Table
from recsys.data.text import PLACE, UNREADABLE
from recsys.data.vocabulary import encode, vocabulary

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
    return raw.select(pl.col(PLACE).alias(ROW), *columns, reason.alias(REASON))


def one_row_per_id(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Of every column the first value of an id that is not null, in the order of the source."""
    return rows.drop(ROW, REASON).group_by(KEY, maintain_order=True).agg(pl.all().drop_nulls().first())


def encode_table(ids: pl.Series, owner: str, rows: pl.DataFrame | None) -> tuple[pl.DataFrame, list[Feature]]:
    """The table of dense ids: two reserved rows, then `ids` in order, with features encoded. Missing ones are unknown."""
    table = pl.DataFrame({f"{owner}_id": pl.concat([pl.Series([None] * FIRST_ID, dtype=pl.String), ids])})
    if rows is None:
        return table, []
    joined = table.join(rows, left_on=f"{owner}_id", right_on=KEY, how="left", maintain_order="left")
    features = []
    for column in [name for name in joined.columns if name.startswith("feature_")]:
        values = joined[column]
        is_list = isinstance(values.dtype, pl.List)
        known = vocabulary(values.drop_nulls().explode(empty_as_null=False) if is_list else values)
        joined = joined.with_columns((_encode_lists(values, known) if is_list else encode(values, known)).alias(column))
        features.append(Feature(column.removeprefix("feature_"), owner, known, is_list))
    return joined, features


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
