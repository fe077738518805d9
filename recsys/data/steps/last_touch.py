"""Repeats of a (user, item): the latest event stays."""

from typing import ClassVar, Literal

import polars as pl

from recsys.columns import IN_HISTORY
from recsys.data.runs import pair
from recsys.spec import Spec


class LastTouch(Spec):
    """Keep the latest timeline event of each (user, item). Rows outside the timeline stay as they are, labels included."""

    kind: Literal["last_touch"] = "last_touch"
    causal: ClassVar[bool] = False

    def __call__(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.filter(~pl.col(IN_HISTORY) | pair(rows).is_last_distinct())
