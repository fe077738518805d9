"""Did a person stay long enough? Dwell time whose end may not have been seen."""

from typing import ClassVar, Literal

import polars as pl

from recsys.columns import label
from recsys.data.labels.histogram import Histogram
from recsys.data.labels.value import value
from recsys.data.sql import Sql
from recsys.spec import Spec


class AtLeast(Spec):
    """1 where `value` reaches `threshold`, 0 where it does not, NaN where that is not known.

    A censored value is a lower bound, as the dwell on the last page before the app was closed (right-censoring, Kaplan and
    Meier 1958, https://doi.org/10.1080/01621459.1958.10501452): it can show that the threshold was reached, never that it was
    not. A null in `censored` counts as not censored. The comparison is between 32-bit floats.
    """

    kind: Literal["at_least"] = "at_least"
    value: Sql
    threshold: float
    censored: Sql | None = None
    causal: ClassVar[bool] = True
    is_binary: ClassVar[bool] = True
    is_fitted: ClassVar[bool] = False

    @property
    def values(self) -> dict[str, Sql]:
        return {"": self.value} if self.censored is None else {"": self.value, "censored": self.censored}

    def __call__(
        self, rows: pl.LazyFrame, task: str, *, end_ms: int | pl.Expr, fitted: Histogram | None = None
    ) -> pl.LazyFrame:
        found = pl.col(value(task))
        is_reached = found >= pl.lit(self.threshold, pl.Float32)
        is_unknown = found.is_nan()
        if self.censored is not None:
            is_unknown |= ~is_reached & (pl.col(value(task, "censored")) == 1)
        known = is_reached.cast(pl.Float32)
        return rows.with_columns(pl.when(is_unknown).then(float("nan")).otherwise(known).cast(pl.Float32).alias(label(task)))
