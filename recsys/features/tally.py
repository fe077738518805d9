"""What is kept per key from one batch of events to the next, and how it is read.

A tally gives events integer weights and answers a query with one integer. That integer, as the weight of one event at the time
of the key's last event, stands for all events up to then: this is what makes a tally carryable without error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol

import numpy as np

from recsys.asof import Asked, decayed_value, decayed_weight
from recsys.duration import milliseconds
from recsys.features.frame import EVERY


class Recalled:
    """A tally's answers as of `time_Q`. `last_Q`, when the last event seen was, or `asof.NEVER`, is worked out only if read."""

    def __init__(self, time_Q: np.ndarray, number_Q: np.ndarray, last: Callable[[], np.ndarray]) -> None:
        self.time_Q, self.number_Q, self._last = time_Q, number_Q, last

    @cached_property
    def last_Q(self) -> np.ndarray:
        return self._last()


class Tally(Protocol):
    """Its `repr` names it in a saved state; tallies that are equal are kept once."""

    @property
    def by(self) -> tuple[str, ...]: ...

    @property
    def event(self) -> str: ...

    @property
    def delay_ms(self) -> int: ...

    @property
    def window_ms(self) -> int | None:
        """How long before t - delay the events that count begin; the caller subtracts the others."""

    def weigh(self, time_E: np.ndarray, flag_E: np.ndarray) -> np.ndarray:
        """int64, positive for flagged events and 0 for others."""

    def number(self, asked: Asked, weight_E: np.ndarray) -> np.ndarray:
        """int64, 0 where nothing is seen."""

    def keeps(self, last_K: np.ndarray, now_ms: int) -> np.ndarray:
        """Which keys, seen last at these times, can matter to a query at `now_ms` or later."""


class Feature(Protocol):
    """A spec of this folder."""

    @property
    def by(self) -> tuple[str, ...]: ...

    @property
    def tallies(self) -> tuple[Tally, ...]: ...

    @property
    def __call__(self) -> Callable[..., np.ndarray]:
        """The float32 values of the queries from one `Recalled` per tally."""


@dataclass(frozen=True)
class Amount:
    """How many events, in a window or since ever, or their decayed sum."""

    by: tuple[str, ...]
    event: str
    delay_ms: int
    window_ms: int | None
    half_life_ms: int | None

    def weigh(self, time_E: np.ndarray, flag_E: np.ndarray) -> np.ndarray:
        return flag_E.astype(np.int64) if self.half_life_ms is None else decayed_weight(time_E, self.half_life_ms) * flag_E

    def number(self, asked: Asked, weight_E: np.ndarray) -> np.ndarray:
        if self.half_life_ms is None:
            return asked.count(weight_E, window_ms=None, delay_ms=self.delay_ms)
        return asked.decayed(weight_E, half_life_ms=self.half_life_ms, delay_ms=self.delay_ms)

    def keeps(self, last_K: np.ndarray, now_ms: int) -> np.ndarray:
        return np.ones(len(last_K), bool)

    def value(self, seen: Recalled) -> np.ndarray:
        """float64."""
        if self.half_life_ms is None:
            return seen.number_Q.astype(np.float64)
        return decayed_value(seen.number_Q, seen.last_Q, seen.time_Q - self.delay_ms, self.half_life_ms)


@dataclass(frozen=True)
class Latest:
    """Whether there was an event; its time is what matters."""

    by: tuple[str, ...]
    event: str
    delay_ms: int
    window_ms: None = None

    def weigh(self, time_E: np.ndarray, flag_E: np.ndarray) -> np.ndarray:
        return flag_E.astype(np.int64)

    def number(self, asked: Asked, weight_E: np.ndarray) -> np.ndarray:
        return (asked.count(weight_E, window_ms=None, delay_ms=self.delay_ms) > 0).astype(np.int64)

    def keeps(self, last_K: np.ndarray, now_ms: int) -> np.ndarray:
        return np.ones(len(last_K), bool)


@dataclass(frozen=True)
class InSession:
    """How many events of the session that is still open."""

    gap_ms: int
    by: tuple[str, ...] = ("user",)
    event: str = EVERY
    delay_ms: int = 0
    window_ms: None = None

    def weigh(self, time_E: np.ndarray, flag_E: np.ndarray) -> np.ndarray:
        return flag_E.astype(np.int64)

    def number(self, asked: Asked, weight_E: np.ndarray) -> np.ndarray:
        return asked.session(weight_E, gap_ms=self.gap_ms)

    def keeps(self, last_K: np.ndarray, now_ms: int) -> np.ndarray:
        return now_ms - last_K < self.gap_ms


@cache
def amount(by: tuple[str, ...], event: str, delay: str, window: str | None, half_life: str | None) -> Amount:
    """`Amount` from lengths of time as text."""
    window_ms = None if window is None else milliseconds(window)
    half_life_ms = None if half_life is None else milliseconds(half_life)
    return Amount(by, event, milliseconds(delay), window_ms, half_life_ms)
