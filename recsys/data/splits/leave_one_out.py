"""The last event of every user. Shapes: N = rows."""

from typing import ClassVar, Literal

import numpy as np
import polars as pl

from recsys.columns import IN_HISTORY, SPLIT, TEST, TIME_MS, TRAIN, VALID
from recsys.data.runs import starts, sums, unit, whole
from recsys.spec import Spec


class LeaveOneOut(Spec):
    """A user's last timeline event tests, the one before it validates; users with fewer than three only train.

    Any other example belongs to the split of the timeline event that its history leads up to; what follows the last one tests.

    Lets a model see other users' future, so it flatters (Meng et al. 2020, https://arxiv.org/abs/2007.13237); kept because most
    published numbers use it.
    """

    kind: Literal["leave_one_out"] = "leave_one_out"
    causal: ClassVar[bool] = False

    def __call__(self, rows: pl.LazyFrame, *, cuts_ms: tuple[int, int] | None = None, ties: str = "file_order") -> pl.LazyFrame:
        """`ties` as in the config: with "simultaneous" a history leaves out the events of the row's own moment."""

        def split(unit_N: np.ndarray, time_ms_N: np.ndarray, in_history_N: np.ndarray) -> np.ndarray:
            before_N = np.cumsum(in_history_N) - in_history_N  # timeline events before the row, of whichever user
            seen_N = before_N[starts(unit_N, time_ms_N)] if ties == "simultaneous" else before_N
            total_N = sums(in_history_N, unit_N)[unit_N]
            from_end_N = total_N + before_N[starts(unit_N)] - np.where(in_history_N, before_N, seen_N)
            is_judged_N = total_N >= 3
            return np.select([is_judged_N & (from_end_N <= 1), is_judged_N & (from_end_N == 2)], [TEST, VALID], TRAIN)

        return rows.with_columns(whole(split, unit(rows), TIME_MS, IN_HISTORY, dtype=pl.Int8).alias(SPLIT))
