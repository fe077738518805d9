"""Labels that arrive late: does an event follow within a span of time? Shapes: N = rows, S = rows in order of search."""

from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from recsys.columns import ITEM, TIME_MS, USER, label
from recsys.data.labels.histogram import Histogram
from recsys.data.labels.value import value
from recsys.data.runs import whole
from recsys.data.sql import Sql
from recsys.duration import Duration
from recsys.spec import Spec


class Within(Spec):
    """1 where `event` happens to the same user and item, or to the same user, after the row and at most `within` later; else 0.

    NaN while the window is open (time + `within` > `end_ms`), also where the event has come already: those that come early
    would be counted and those that come late would not, so that the newest rows would have too many positives among the known
    ones (the bias that Chapelle 2014 models, https://doi.org/10.1145/2623330.2623634; here such rows wait). "After" is in
    order of time, then of arrival, so that a row of the same moment counts if it arrived later. Rows outside the timeline
    count as events too.

    The label reads rows that steps may drop (the repeat that `first_touch` drops can be the purchase): work it out before them.
    """

    kind: Literal["within"] = "within"
    event: Sql = Field(description="truth value: which rows are the event, as in \"event = 'buy'\"")
    within: Duration = Field(gt=0)
    per: Literal["item", "user"] = Field("item", description="item: the event must be of the row's own item")
    where: Sql = Field("true", description="truth value: which rows are examples")
    causal: ClassVar[bool] = False
    is_binary: ClassVar[bool] = True
    is_fitted: ClassVar[bool] = False

    @property
    def values(self) -> dict[str, Sql]:
        return {"": self.event, "where": self.where}

    def __call__(
        self, rows: pl.LazyFrame, task: str, *, end_ms: int | pl.Expr, fitted: Histogram | None = None
    ) -> pl.LazyFrame:
        """`end_ms` is the last moment that a label may know: the log's last time, or `horizon_ms` row by row."""
        follows = whole(self._follows, USER, ITEM, TIME_MS, value(task), dtype=pl.Boolean)
        is_example = (pl.col(value(task, "where")) == 1) & (pl.col(TIME_MS) + self.within <= end_ms)
        found = pl.when(is_example).then(follows.cast(pl.Float32)).otherwise(float("nan"))
        return rows.with_columns(found.cast(pl.Float32).alias(label(task)))

    def _follows(self, user_N: np.ndarray, item_N: np.ndarray, time_ms_N: np.ndarray, event_N: np.ndarray) -> np.ndarray:
        row_S = np.arange(len(user_N))
        if self.per == "item":  # by item, then in the order of rows: an item's rows of one user stand together
            row_S = np.sort(item_N.astype(np.int64) << 32 | row_S) & 0xFFFFFFFF
        is_event_S = event_N[row_S] == 1
        place_E = np.append(np.flatnonzero(is_event_S), len(row_S))
        next_S = place_E[np.cumsum(is_event_S)]  # the first event after each place
        follows_N = np.zeros(len(user_N), bool)
        has_next_S = next_S < len(row_S)
        here, there = row_S[has_next_S], row_S[next_S[has_next_S]]
        is_same = (user_N[here] == user_N[there]) & ((self.per == "user") | (item_N[here] == item_N[there]))
        follows_N[here] = is_same & (time_ms_N[there] - time_ms_N[here] <= self.within)
        return follows_N


def horizon_ms(cuts_ms: tuple[int, int], end_ms: int) -> pl.Expr:
    """The last moment that a row's label may know under a split by time, as `end_ms` of a label.

    What is trained on at the first cut cannot know what followed it, so a training row's window must close before validation
    begins, and a validation row's before the test.
    """
    valid_ms, test_ms = cuts_ms
    time_ms = pl.col(TIME_MS)
    return pl.when(time_ms < valid_ms).then(valid_ms - 1).when(time_ms < test_ms).then(test_ms - 1).otherwise(end_ms)
