"""Timelines cut where a user was away. Shapes: N = rows, S = sessions."""

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from recsys.columns import IN_HISTORY, TIME_MS, USER
from recsys.data.runs import SESSION, begins, starts, sums, whole
from recsys.duration import Duration, milliseconds
from recsys.spec import Spec

DROPPED = -1


class Sessions(Spec):
    """Make every session a timeline of its own: add `session`, counted from 0 in every user, without gaps.

    A session ends when no row of the user follows for longer than `gap`; impressions keep it open as clicks do. Short ones are
    dropped whole.
    """

    kind: Literal["sessions"] = "sessions"
    gap: Duration = Field(milliseconds("30m"), gt=0)
    min_events: int = Field(1, ge=1, description="timeline events a session needs; 1 keeps every session, as do no events")

    @property
    def causal(self) -> bool:
        return self.min_events == 1

    def __call__(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        numbers = whole(self._numbers, USER, TIME_MS, IN_HISTORY, dtype=pl.Int32)
        return rows.with_columns(numbers.alias(SESSION)).filter(pl.col(SESSION) != DROPPED)

    def _numbers(self, user_N: np.ndarray, time_ms_N: np.ndarray, in_history_N: np.ndarray) -> np.ndarray:
        begins_N = begins(user_N)
        begins_N[1:] |= np.diff(time_ms_N) > self.gap
        session_N = np.cumsum(begins_N) - 1
        is_kept_S = np.ones(int(begins_N.sum()), bool)
        if self.min_events > 1:
            is_kept_S = sums(in_history_N, session_N) >= self.min_events
        user_S = user_N[begins_N]
        before_S = np.cumsum(is_kept_S) - is_kept_S
        number_S = np.where(is_kept_S, before_S - before_S[starts(user_S)], DROPPED)
        return number_S[session_N].astype(np.int32)
