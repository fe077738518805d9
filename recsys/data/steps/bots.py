"""Users that no person can be. Shapes: N = rows, E = timeline events among them, R = runs."""

from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from recsys.columns import IN_HISTORY, ITEM, TIME_MS, USER
from recsys.data.runs import begins, whole
from recsys.duration import DAY_MS
from recsys.spec import Spec


class Bots(Spec):
    """Drop every row of a user with too many timeline events on any day (UTC), or with any one item."""

    kind: Literal["bots"] = "bots"
    max_events_per_day: int | None = Field(None, ge=1)
    max_events_per_item: int | None = Field(None, ge=1, description="over the whole log")
    causal: ClassVar[bool] = False

    @model_validator(mode="after")
    def _has_a_rule(self) -> "Bots":
        if self.max_events_per_day is None and self.max_events_per_item is None:
            raise ValueError("give max_events_per_day, max_events_per_item or both: without them no user is a bot")
        return self

    def __call__(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.filter(whole(self._keep, USER, ITEM, TIME_MS, IN_HISTORY, dtype=pl.Boolean))

    def _keep(self, user_N: np.ndarray, item_N: np.ndarray, time_ms_N: np.ndarray, in_history_N: np.ndarray) -> np.ndarray:
        number_N = np.cumsum(begins(user_N)) - 1
        number_E = number_N[in_history_N]
        is_bot = np.zeros(int(number_N[-1]) + 1 if len(number_N) else 0, bool)
        if self.max_events_per_day is not None:
            is_bot[_too_many(number_E, time_ms_N[in_history_N] // DAY_MS, limit=self.max_events_per_day)] = True
        if self.max_events_per_item is not None:
            pair_E = np.sort(number_E << 32 | item_N[in_history_N])
            is_bot[_too_many(pair_E >> 32, pair_E, limit=self.max_events_per_item)] = True
        return ~is_bot[number_N]


def _too_many(number_E: np.ndarray, key_E: np.ndarray, *, limit: int) -> np.ndarray:
    """Users with a run of more than `limit` equal keys."""
    start_R = np.flatnonzero(begins(number_E, key_E))
    length_R = np.diff(start_R, append=len(number_E))
    return number_E[start_R[length_R > limit]]
