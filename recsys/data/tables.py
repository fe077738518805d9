"""User and item tables of a dataset: row number = dense id, features as dense codes."""

from dataclasses import dataclass

import polars as pl

from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.data.source import Table
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


def attributes(raw: pl.LazyFrame, *, table: Table) -> pl.DataFrame:
    """One row per id: the id, features as text or lists of text, and the title. The first row of an id counts."""
    schema = raw.collect_schema()
    columns = [pl.sql_expr(table.id).cast(pl.String).str.strip_chars().alias(KEY)]
    for name, text in table.features.items():
        value = pl.sql_expr(text)
        is_list = isinstance(raw.select(value.alias("v")).collect_schema()["v"], pl.List)
        columns.append(value.cast(pl.List(pl.String) if is_list else pl.String).alias(f"feature_{name}"))
    if table.title is not None:
        columns.append(pl.sql_expr(table.title).cast(pl.String).alias("title"))
    assert schema
    return raw.select(columns).drop_nulls(KEY).unique(KEY, keep="first", maintain_order=True).collect()


def encode_table(ids: pl.Series, owner: str, rows: pl.DataFrame | None) -> tuple[pl.DataFrame, list[Feature]]:
    """The table of dense ids: two reserved rows, then `ids` in order, with features encoded. Missing ones are unknown."""
    table = pl.DataFrame({f"{owner}_id": pl.concat([pl.Series([None, None], dtype=pl.String), ids])})
    if rows is None:
        return table, []
    joined = table.join(rows, left_on=f"{owner}_id", right_on=KEY, how="left", maintain_order="left")
    features = []
    for column in [name for name in joined.columns if name.startswith("feature_")]:
        values = joined[column]
        is_list = isinstance(values.dtype, pl.List)
        feature = Feature(column.removeprefix("feature_"), owner, vocabulary(values.explode() if is_list else values), is_list)
        joined = joined.with_columns(_encode_lists(values, feature.values) if is_list else encode(values, feature.values).alias(column))
        features.append(feature)
    return joined, features


def _encode_lists(values: pl.Series, known: pl.Series) -> pl.Series:
    """Encode each list; an empty or missing list becomes [UNKNOWN_ID]."""
    unknown = pl.lit([None], dtype=pl.List(pl.String))
    filled = pl.select(pl.when(values.list.len() > 0).then(values).otherwise(unknown)).to_series()
    codes = encode(filled.explode(), known)
    lengths = filled.list.len()
    groups = pl.DataFrame({"row": pl.int_range(len(filled), eager=True).repeat_by(lengths).explode(), "code": codes})
    assert UNKNOWN_ID == 1
    return groups.group_by("row", maintain_order=True).agg("code")["code"].alias(values.name)
