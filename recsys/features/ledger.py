"""The tallies of one set of keys, over the events of a batch and what a state remembers. Shapes: E = events, K = keys."""

from collections.abc import Callable

import numpy as np

from recsys.asof import Asked, Log
from recsys.errors import InputError
from recsys.features.frame import BEGINNING_MS, Frame
from recsys.features.state import State, Summary
from recsys.features.tally import Recalled, Tally

Weighed = tuple[Log, np.ndarray]  # events, and what each weighs in a tally


class Ledger:
    """Answers queries, and sums up as of `until_ms` for the next batch, per combination of the columns `by`.

    With a state a tally takes in the summary of the events before state.time - delay and, one by one, the events from there on;
    what its window loses meanwhile begins at state.time - delay - window. Both are about as many events as the batch has.

    Without queries it is ready for those of any key at any time from the state on: `later`.
    """

    def __init__(self, by: tuple[str, ...], events: Frame, queries: Frame | None, state: State | None, until_ms: int) -> None:
        self.by, self.events, self.state, self.until_ms, self.keeps = by, events, state, until_ms, queries is None
        self.event_key = events.key(by)
        queries = events if queries is None else queries  # an empty frame is one
        self.query_key = self.event_key if queries is events else queries.key(by)
        self.query_time = queries.time_ms
        self.latest_ms = -BEGINNING_MS if self.keeps else max(until_ms, queries.newest_ms)
        self._whole = Log(self.event_key, events.time_ms) if state is None else None
        self._weighed: dict[tuple[Tally, str], Weighed] = {}
        self._asked: dict[int, Asked] = {}  # by id of the log
        self._asked_at_end: dict[int, Asked] = {}

    def recall(self, tally: Tally) -> Recalled:
        """As of the queries."""
        return self._recall(tally, self.query_key, self.query_time, self._asked)

    def later(self, queries: Frame) -> Callable[[Tally], Recalled]:
        """Recalls tallies as of other queries."""
        key_Q, asked = queries.key(self.by), dict[int, Asked]()
        return lambda tally: self._recall(tally, key_Q, queries.time_ms, asked)

    def summary(self, tally: Tally) -> Summary:
        """As of `until_ms`."""
        key_K = self._entered(tally)[0].keys
        seen = self._recall(tally, key_K, np.full(len(key_K), self.until_ms), self._asked_at_end)
        new = Summary(key_K, seen.last_Q, seen.number_Q).where(seen.number_Q > 0)
        summary = new if self.state is None else self.state.summaries[repr(tally)].updated(key_K, new)
        return summary.where(tally.keeps(summary.last_K, self.until_ms))

    def _recall(self, tally: Tally, key_Q: np.ndarray, time_Q: np.ndarray, asked_by: dict[int, Asked]) -> Recalled:
        log, weight_E = self._entered(tally)
        asked = _ask(log, key_Q, time_Q, asked_by)
        number_Q = tally.number(asked, weight_E)
        if tally.window_ms is not None:
            lost, lost_E = self._left(tally)
            asked_lost = _ask(lost, key_Q, time_Q, asked_by)
            number_Q = number_Q - asked_lost.count(lost_E, window_ms=None, delay_ms=_out_ms(tally))
        return Recalled(time_Q, number_Q, lambda: asked.last(weight_E, delay_ms=tally.delay_ms))

    def _entered(self, tally: Tally) -> Weighed:
        """The events that a tally takes in; those that the state has summed up stand as one event per key that matters here."""
        if (tally, "entered") not in self._weighed:
            self._weighed[tally, "entered"] = self._all(tally) if self.state is None else self._since(tally, self.state)
        return self._weighed[tally, "entered"]

    def _left(self, tally: Tally) -> Weighed:
        """Events among which those are that have left a tally's window."""
        if self.state is None:
            return self._entered(tally)
        if (tally, "left") not in self._weighed:
            key_E, time_E = self._passing(tally, self.state, _out_ms(tally))
            self._weighed[tally, "left"] = Log(key_E, time_E, keeps=self.keeps), np.ones(len(key_E), np.int64)
        return self._weighed[tally, "left"]

    def _all(self, tally: Tally) -> Weighed:
        assert self._whole is not None
        return self._whole, tally.weigh(self.events.time_ms, self.events.flag(tally.event))

    def _since(self, tally: Tally, state: State) -> Weighed:
        if repr(tally) not in state.summaries:
            raise InputError(f"the state knows no {tally}: after a change of point-in-time features begin without a state")
        key_E, time_E = self._passing(tally, state, tally.delay_ms)
        keys = [self.query_key, key_E]
        if tally.window_ms is not None:
            keys.append(self._left(tally)[0].keys)
        before = state.summaries[repr(tally)]
        if not self.keeps:
            before = before.of(np.unique(np.concatenate(keys)))
        log = Log(np.concatenate([before.key_K, key_E]), np.concatenate([before.last_K, time_E]), keeps=self.keeps)
        return log, np.concatenate([before.number_K, tally.weigh(time_E, np.ones(len(time_E), bool))])

    def _passing(self, tally: Tally, state: State, earlier_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and times of the tally's events from state.time - earlier_ms to the latest moment asked for - earlier_ms."""
        begin, end = state.time_ms - earlier_ms, self.latest_ms - earlier_ms
        old = state.tail.take(slice(*np.searchsorted(state.tail.time_ms, [begin, end])))
        old_flag, new_flag = old.flag(tally.event), self.events.flag(tally.event) & (self.events.time_ms < end)
        return (
            np.concatenate([old.key(self.by)[old_flag], self.event_key[new_flag]]),
            np.concatenate([old.time_ms[old_flag], self.events.time_ms[new_flag]]),
        )


def _ask(log: Log, key_Q: np.ndarray, time_Q: np.ndarray, asked_by: dict[int, Asked]) -> Asked:
    if id(log) not in asked_by:
        asked_by[id(log)] = log.ask(key_Q, time_Q)
    return asked_by[id(log)]


def _out_ms(tally: Tally) -> int:
    """How long after an event it is no longer in the window."""
    return tally.delay_ms + (tally.window_ms or 0)
