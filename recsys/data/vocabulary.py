"""External values to dense ids. 0 is padding, 1 is unknown, real ids begin at 2 in the order of the sorted values."""

import polars as pl

from recsys.columns import FIRST_ID, UNKNOWN_ID


def vocabulary(values: pl.Series) -> pl.Series:
    """Sorted distinct values; the place in it plus FIRST_ID is the dense id."""
    return values.drop_nulls().unique().sort()


def encode(values: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Dense ids (32-bit) of `values`; null and unseen values become UNKNOWN_ID."""
    table = pl.DataFrame(
        {"value": vocabulary, "id": pl.int_range(FIRST_ID, FIRST_ID + len(vocabulary), dtype=pl.Int32, eager=True)}
    )
    joined = pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")
    return joined["id"].fill_null(UNKNOWN_ID)
