"""More events in a short while than a person makes. Shapes: N = rows, E = timeline events among them."""

from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from recsys.columns import IN_HISTORY, TIME_MS
from recsys.data.runs import unit, whole
from recsys.duration import Duration, milliseconds
from recsys.spec import Spec


class Burst(Spec):
    """Drop a timeline event that comes after `max_events` others of its user less than `within` ago.

    The dropped ones count as well, so that a burst ends when it slows down, not each time the window moves on.
    """

    kind: Literal["burst"] = "burst"
    max_events: int = Field(ge=1, description="timeline events of a user kept in any window of this length")
    within: Duration = Field(milliseconds("1m"), gt=0)
    causal: ClassVar[bool] = True

    def __call__(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.filter(whole(self._keep, unit(rows), TIME_MS, IN_HISTORY, dtype=pl.Boolean))

    def _keep(self, unit_N: np.ndarray, time_ms_N: np.ndarray, in_history_N: np.ndarray) -> np.ndarray:
        row_E = np.flatnonzero(in_history_N)
        unit_E, time_ms_E, n = unit_N[row_E], time_ms_N[row_E], self.max_events
        is_over = (unit_E[n:] == unit_E[:-n]) & (time_ms_E[n:] - time_ms_E[:-n] < self.within)
        keep_N = np.ones(len(unit_N), bool)
        keep_N[row_E[n:][is_over]] = False
        return keep_N
