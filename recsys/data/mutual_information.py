"""How much the features of items tell about each other. Shapes: F = features."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl

from recsys.columns import FIRST_ID, feature

MOST_ITEMS = 100_000  # of a larger catalogue so many are counted, evenly spaced


def mutual_information(items: pl.DataFrame, features: Sequence[str], *, most_items: int = MOST_ITEMS) -> np.ndarray:
    """mutual_FF in nats, of every two features of the item table; 0 on the diagonal, which nobody asks for.

    sum of p(a, b) log(p(a, b) / (p(a) p(b))) over pairs of values. Every item counts once, whoever took it: where it has
    several values of a feature its pairs share its weight. Unknown values (codes below FIRST_ID) are not counted. A feature
    of very many values tells much about every other one by chance alone, as an id does.
    """
    chosen = items.gather_every(max(1, -(-items.height // most_items)))
    mutual_FF = np.zeros((len(features), len(features)))
    for first, second in combinations(range(len(features)), 2):
        pairs = value_pairs(chosen, feature(features[first]), feature(features[second]))
        mutual_FF[first, second] = mutual_FF[second, first] = of_pairs(pairs)
    return mutual_FF.round(9)  # so that no order of features hangs on the last digits


def value_pairs(items: pl.DataFrame, first: str, second: str) -> pl.DataFrame:
    """The weight of each pair of values (a, b); an item's pairs add up to 1."""
    rows = items.lazy().select(_known(items, first).alias("a"), _known(items, second).alias("b"))
    return (
        rows.filter(pl.col("a").list.len() > 0, pl.col("b").list.len() > 0)
        .with_columns(weight=1 / (pl.col("a").list.len() * pl.col("b").list.len()))
        .explode("a")
        .explode("b")
        .group_by("a", "b", maintain_order=True)
        .agg(pl.col("weight").sum())
        .collect()
    )


def of_pairs(pairs: pl.DataFrame) -> float:
    """The mutual information of weighted pairs (a, b)."""
    share, sides = pl.col("share"), pl.col("share").sum().over("a") * pl.col("share").sum().over("b")
    shares = pairs.select("a", "b", share=pl.col("weight") / pl.col("weight").sum())
    return float(shares.select(term=share * (share / sides).log())["term"].sum())


def _known(items: pl.DataFrame, name: str) -> pl.Expr:
    """The known values of each row, as a list."""
    column = pl.col(name)
    values = column if items.schema[name].base_type() in (pl.List, pl.Array) else pl.concat_list(column)
    return values.list.eval(pl.element().filter(pl.element() >= FIRST_ID))
