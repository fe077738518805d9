"""Everything before one moment trains."""

import math
from datetime import UTC, datetime
from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from recsys.columns import SPLIT, TEST, TIME_MS, TRAIN, VALID
from recsys.data.splits.order_statistics import Parts, extent, order_statistics
from recsys.duration import DAY_MS
from recsys.errors import InputError
from recsys.spec import Spec

NO_CUT = "split.kind time finds no two distinct moments to cut at: use kind leave_one_out for this log"


class GlobalTime(Spec):
    """Everything before one moment trains, the window after it validates, the last window tests.

    The only split in which no model sees the future of any user (Ji et al. 2023, https://arxiv.org/abs/2010.11060). The
    moments are dates, or days counted back from the last timeline event (24 hours each), or quantiles of the timeline events'
    times. All rows are cut at the same moments, those outside the timeline too.
    """

    kind: Literal["time"] = "time"
    valid_share: float = Field(0.1, gt=0, lt=1)
    test_share: float = Field(0.1, gt=0, lt=1)
    valid_days: float | None = Field(None, gt=0, description="days before the test days that validate")
    test_days: float | None = Field(None, gt=0, description="last days of the log that test")
    valid_from: datetime | None = None
    test_from: datetime | None = None
    causal: ClassVar[bool] = True

    @model_validator(mode="after")
    def _ordered(self) -> "GlobalTime":
        if self.valid_share + self.test_share >= 1:
            raise ValueError(f"valid_share {self.valid_share} + test_share {self.test_share} leave nothing to train on")
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("give both valid_from and test_from, or neither")
        if self.valid_from and self.test_from and _ms(self.valid_from) >= _ms(self.test_from):
            raise ValueError(f"valid_from {self.valid_from} is not before test_from {self.test_from}")
        if (self.valid_days is None) != (self.test_days is None):
            raise ValueError("give both valid_days and test_days, or neither")
        if self.valid_days and self.valid_from:
            raise ValueError("give dates (valid_from, test_from) or days (valid_days, test_days), not both")
        return self

    def cuts(self, times: Parts) -> tuple[int, int]:
        """First moments of validation and test, from the timeline events' times part by part. Raises InputError."""
        if self.valid_from and self.test_from:
            return _ms(self.valid_from), _ms(self.test_from)
        count, first_ms, last_ms = extent(times)
        if not count:
            raise InputError(NO_CUT)
        if self.valid_days and self.test_days:
            test_ms = last_ms + 1 - round(self.test_days * DAY_MS)
            valid_ms = test_ms - round(self.valid_days * DAY_MS)
        else:
            shares = (1 - self.valid_share - self.test_share, 1 - self.test_share)
            places = [math.ceil((count - 1) * share) for share in shares]  # the quantile that is an event's time, upwards
            valid_ms, test_ms = order_statistics(times, places, low=first_ms, high=last_ms)
        if valid_ms >= test_ms:
            raise InputError(NO_CUT)
        return valid_ms, test_ms

    def __call__(self, rows: pl.LazyFrame, *, cuts_ms: tuple[int, int] | None, ties: str = "file_order") -> pl.LazyFrame:
        assert cuts_ms is not None, "a split by time needs the moments that `cuts` finds"
        valid_ms, test_ms = cuts_ms
        split = pl.when(pl.col(TIME_MS) >= test_ms).then(TEST).when(pl.col(TIME_MS) >= valid_ms).then(VALID).otherwise(TRAIN)
        return rows.with_columns(split.cast(pl.Int8).alias(SPLIT))


def _ms(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
