"""Watch time as a rank among like items."""

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field

from recsys.columns import label
from recsys.data.labels.histogram import Histogram
from recsys.data.labels.value import value
from recsys.data.runs import whole
from recsys.data.sql import Sql
from recsys.spec import Spec


class Quantile(Spec):
    """The rank in [0, 1] of `value` among the training rows of the same group `by`, such as watch time among videos as long.

    D2Q, Zhan et al. 2022, https://arxiv.org/abs/2206.06003: longer videos are watched longer whatever people think of them,
    and a rank within a duration group takes that away. Differs from the paper: groups are what `by` gives, not equally filled
    ones; the distribution is a histogram whose bins are under 0.8 % wide; equal values get the middle of their ranks, so that
    the mean over the training rows of a group is one half whatever the ties (many watch times are 0).

    NaN where the value is unknown or negative, where `by` is unknown and where a group has no training row. Groups are numbers:
    `by` gives a bucket, as in "FLOOR(LOG2(duration_s))", not a text. Fitted on training rows, so new ones change every label.
    """

    kind: Literal["quantile"] = "quantile"
    value: Sql
    by: Sql | None = Field(None, description="group of the row, a number; left out: all rows are one group")
    causal: ClassVar[bool] = False
    is_binary: ClassVar[bool] = False
    is_fitted: ClassVar[bool] = True

    @property
    def values(self) -> dict[str, Sql]:
        return {"": self.value} if self.by is None else {"": self.value, "by": self.by}

    def fit(self, rows: pl.DataFrame, task: str) -> Histogram:
        """Count training rows; see `Histogram.merge`."""
        return Histogram.of(*(rows.select(column).to_series().to_numpy() for column in self._columns(task)))

    def __call__(
        self, rows: pl.LazyFrame, task: str, *, end_ms: int | pl.Expr, fitted: Histogram | None = None
    ) -> pl.LazyFrame:
        assert fitted is not None, "fit the label on the training rows first"
        return rows.with_columns(whole(fitted.ranks, *self._columns(task), dtype=pl.Float32).alias(label(task)))

    def _columns(self, task: str) -> tuple[pl.Expr, pl.Expr]:
        found = pl.col(value(task))
        group = found * 0 if self.by is None else pl.col(value(task, "by"))
        return found, group.alias("by")
