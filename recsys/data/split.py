"""Which examples train, which select, which judge.

Frames hold `user`, `time_ms`, `in_history`, `rank` (a user's timeline events before the row) and `position` (those it may see).
"""

from datetime import UTC, datetime
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from recsys.columns import IN_HISTORY, POSITION, SPLIT, TEST, TIME_MS, TRAIN, USER, VALID
from recsys.errors import InputError
from recsys.spec import Spec

RANK = "rank"


class GlobalTime(Spec):
    """Everything before one moment trains, the window after it validates, the last window tests.

    The only split in which no model sees the future of any user (Ji et al. 2023, https://arxiv.org/abs/2010.11060).
    Without dates the cuts are quantiles of the timeline events' times.
    """

    kind: Literal["time"] = "time"
    valid_share: float = Field(0.1, gt=0, lt=1)
    test_share: float = Field(0.1, gt=0, lt=1)
    valid_from: datetime | None = None
    test_from: datetime | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "GlobalTime":
        if self.valid_share + self.test_share >= 1:
            raise ValueError(f"valid_share {self.valid_share} + test_share {self.test_share} leave nothing to train on")
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("give both valid_from and test_from, or neither")
        if self.valid_from and self.test_from and _ms(self.valid_from) >= _ms(self.test_from):
            raise ValueError(f"valid_from {self.valid_from} is not before test_from {self.test_from}")
        return self

    def __call__(self, events: pl.LazyFrame) -> pl.LazyFrame:
        valid_ms, test_ms = self._cuts_ms(events)
        split = pl.when(pl.col(TIME_MS) >= test_ms).then(TEST).when(pl.col(TIME_MS) >= valid_ms).then(VALID).otherwise(TRAIN)
        return events.with_columns(split.cast(pl.Int8).alias(SPLIT))

    def _cuts_ms(self, events: pl.LazyFrame) -> tuple[int, int]:
        if self.valid_from and self.test_from:
            return _ms(self.valid_from), _ms(self.test_from)
        at = pl.col(TIME_MS).filter(pl.col(IN_HISTORY))
        shares = (1 - self.valid_share - self.test_share, 1 - self.test_share)
        cuts = events.select([at.quantile(share, "higher").alias(str(share)) for share in shares]).collect().row(0)
        if cuts[0] is None or cuts[0] >= cuts[1]:
            raise InputError("split.kind time finds no two distinct moments to cut at: use kind leave_one_out for this log")
        return int(cuts[0]), int(cuts[1])


class LeaveOneOut(Spec):
    """A user's last timeline event tests, the one before it validates; users with fewer than three only train.

    Any other example belongs to the split of the timeline event that its history leads up to; what follows the last one tests.

    Lets a model see other users' future, so it flatters (Meng et al. 2020, https://arxiv.org/abs/2007.13237); kept because most
    published numbers use it.
    """

    kind: Literal["leave_one_out"] = "leave_one_out"

    def __call__(self, events: pl.LazyFrame) -> pl.LazyFrame:
        total = pl.col(IN_HISTORY).sum().over(USER).cast(pl.Int64)
        from_end = total - pl.when(IN_HISTORY).then(RANK).otherwise(POSITION)
        split = pl.when(total < 3).then(TRAIN).when(from_end <= 1).then(TEST).when(from_end == 2).then(VALID).otherwise(TRAIN)
        return events.with_columns(split.cast(pl.Int8).alias(SPLIT))


def _ms(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
