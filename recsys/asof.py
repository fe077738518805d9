"""What was known just before a moment: counts, decayed sums, last times and sessions in a log of events.

A query at time t sees the events of its key whose time is strictly before t - delay; times are milliseconds. Offline the
queries are the rows of a log, online the candidates of a request. All sums are of integers, so neither the order of the events,
nor events of other keys, nor a cut of the log into batches changes a bit of any answer. Needs numpy only.

Shapes: E = events, Q = queries, N = any rows, F = events of positive weight in order of key and time, G = runs of F in one key
and one half-life. A 1 after the letter is one entry more, as in offsets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

NEVER = int(np.iinfo(np.int64).min)  # the time of an event that there is not
FRACTION_BITS = 32  # of the integers that stand for decayed weights
_MOST = 2**62
_Made = TypeVar("_Made")


def count_before(
    key_E: np.ndarray, time_E: np.ndarray, flag_E: np.ndarray, key_Q: np.ndarray, time_Q: np.ndarray,
    *, window_ms: int | None, delay_ms: int,
) -> np.ndarray:  # fmt: skip
    """For each query the number of flagged events with time in [t - delay - window, t - delay); window None is since ever."""
    return Log(key_E, time_E).ask(key_Q, time_Q).count(flag_E, window_ms=window_ms, delay_ms=delay_ms)


def decayed_before(
    key_E: np.ndarray, time_E: np.ndarray, flag_E: np.ndarray, key_Q: np.ndarray, time_Q: np.ndarray,
    *, half_life_ms: int, delay_ms: int,
) -> np.ndarray:  # fmt: skip
    """For each query the sum of 2^-((t - delay - time) / half_life) over the flagged events before t - delay, as float64."""
    weight_E = decayed_weight(time_E, half_life_ms) * np.asarray(flag_E, np.int64)
    asked = Log(key_E, time_E).ask(key_Q, time_Q)
    sum_Q = asked.decayed(weight_E, half_life_ms=half_life_ms, delay_ms=delay_ms)
    return decayed_value(sum_Q, asked.last(weight_E, delay_ms=delay_ms), time_Q - delay_ms, half_life_ms)


def last_before(key_E: np.ndarray, time_E: np.ndarray, key_Q: np.ndarray, time_Q: np.ndarray, *, delay_ms: int) -> np.ndarray:
    """For each query the newest time before t - delay of an event of its key, or `NEVER`."""
    return Log(key_E, time_E).ask(key_Q, time_Q).last(np.ones(len(key_E), np.int64), delay_ms=delay_ms)


def session_position(
    key_E: np.ndarray, time_E: np.ndarray, key_Q: np.ndarray, time_Q: np.ndarray, *, gap_ms: int
) -> np.ndarray:
    """For each query how many events of its session come before it; a session ends when nothing happens for `gap_ms`."""
    return Log(key_E, time_E).ask(key_Q, time_Q).session(np.ones(len(key_E), np.int64), gap_ms=gap_ms)


def decayed_weight(time_E: np.ndarray, half_life_ms: int) -> np.ndarray:
    """2^(part of a half-life since its begin), between 1 and 2, in fixed point; half-lives begin at 1970-01-01.

    Forward decay, Cormode et al. 2009, https://doi.org/10.1109/ICDE.2009.65. Differs from the paper: the landmark moves on with
    every half-life, where rescaling a sum is a shift by one bit. So years of data do not overflow, and a decayed sum is off by
    less than 2^-30, or its float64 rounding where that is more. There is room for 2^29 events of a key in one half-life.
    """
    return np.rint(np.exp2(time_E % half_life_ms / half_life_ms + FRACTION_BITS)).astype(np.int64)


def decayed_value(sum_Q: np.ndarray, last_Q: np.ndarray, cut_Q: np.ndarray, half_life_ms: int) -> np.ndarray:
    """The decayed sum at time `cut` from the fixed-point sum in the half-life of its last event."""
    age_Q = cut_Q - np.where(sum_Q > 0, last_Q // half_life_ms * half_life_ms, cut_Q)
    return sum_Q * np.exp2(-age_Q / half_life_ms - FRACTION_BITS)


class Log:
    """Events in any order, sorted once by key and time and asked many times. Keys are integers.

    With `keeps` it also remembers what it has summed up, for a log that is asked with the same weights again and again.
    """

    def __init__(self, key_E: np.ndarray, time_E: np.ndarray, *, keeps: bool = False) -> None:
        self.key_E, self.time_E, self.keeps = key_E, time_E, keeps
        self._kept: dict[tuple[str, int], tuple[np.ndarray, object]] = {}
        self.first_ms = int(time_E.min()) if len(time_E) else 0
        self.span = int(time_E.max()) - self.first_ms + 2 if len(time_E) else 2
        lowest, highest = (int(key_E.min()), int(key_E.max())) if len(key_E) else (0, 0)
        self.lowest, self.num_codes = lowest, highest - lowest + 1
        self._distinct: np.ndarray | None = None
        if (self.num_codes + 1) * self.span >= _MOST:
            self._distinct = np.unique(key_E)
            self.num_codes = len(self._distinct)
        assert (self.num_codes + 1) * self.span < _MOST, "too many keys over too long a time for one log: use more shards"
        place_E = self.code(key_E) * self.span + (time_E - self.first_ms)
        self.order_E = np.argsort(place_E)
        self.place_E = place_E[self.order_E]

    def code(self, key_N: np.ndarray) -> np.ndarray:
        """Keys as small integers in the same order; one that the log does not have gets a code without events."""
        key_N = np.asarray(key_N, np.int64)
        if self._distinct is None:
            known_N = (key_N >= self.lowest) & (key_N < self.lowest + self.num_codes)
            return np.where(known_N, key_N - self.lowest, self.num_codes)
        code_N = np.searchsorted(self._distinct, key_N)
        return np.where(self._distinct[np.minimum(code_N, self.num_codes - 1)] == key_N, code_N, self.num_codes)

    @cached_property
    def keys(self) -> np.ndarray:
        """The distinct keys, ascending."""
        return np.unique(self.key_E) if self._distinct is None else self._distinct

    def ask(self, key_Q: np.ndarray, time_Q: np.ndarray) -> "Asked":
        return Asked(self, key_Q, time_Q)

    def once(self, what: str, weight_E: np.ndarray, make: Callable[[], _Made]) -> _Made:
        """`make()`, or what it gave for the same weights before, where the log keeps that."""
        if not self.keeps:
            return make()
        place = what, id(weight_E)
        if place not in self._kept:
            self._kept[place] = weight_E, make()  # with the weights, whose id could be another array's afterwards
        made: _Made = self._kept[place][1]  # type: ignore[assignment]
        return made

    def sums(self, weight_E: np.ndarray) -> np.ndarray:
        """Running sums of the weights in the order of the log, from 0 on."""
        return self.once("sums", weight_E, lambda: _sums(weight_E[self.order_E]))

    def weighed(self, weight_E: np.ndarray) -> "_Weighed":
        return self.once("weighed", weight_E, lambda: _Weighed.of(self, weight_E))


@dataclass(frozen=True, eq=False)
class _Weighed:
    """The events of positive weight of a log."""

    code_F: np.ndarray
    time_F: np.ndarray
    sum_F1: np.ndarray
    before_E1: np.ndarray  # how many of F come before a place in the log

    @classmethod
    def of(cls, log: Log, weight_E: np.ndarray) -> "_Weighed":
        sorted_E = weight_E[log.order_E]
        counts_E = sorted_E > 0
        code_F, since_F = np.divmod(log.place_E[counts_E], log.span)
        return cls(code_F, since_F + log.first_ms, _sums(sorted_E[counts_E]), _sums(counts_E))

    def begins(self, other_F: np.ndarray) -> np.ndarray:
        """Which of F begin another key, or differ from the one before in the way that `other_F` says from the second on."""
        return np.concatenate([np.ones(min(len(self.code_F), 1), bool), (np.diff(self.code_F) != 0) | other_F])

    def base(self, half_life_ms: int) -> np.ndarray:
        """For each of F what older half-lives hand on to its own, less the running sum before that."""
        block_F = self.time_F // half_life_ms
        begins_F = self.begins(np.diff(block_F) != 0)
        group_F, first_G = np.cumsum(begins_F) - 1, np.flatnonzero(begins_F)
        sum_G = np.diff(self.sum_F1[np.append(first_G, len(group_F))])
        older_G = _carried(self.code_F[first_G], block_F[first_G], sum_G)
        base_F: np.ndarray = (older_G - self.sum_F1[first_G])[group_F]
        return base_F


class Asked:
    """A log's answers to one set of queries. Weights are integers or booleans; an event of weight 0 does not count."""

    def __init__(self, log: Log, key_Q: np.ndarray, time_Q: np.ndarray) -> None:
        self.log = log
        start_Q = log.code(key_Q) * log.span
        since_Q = np.asarray(time_Q, np.int64) - log.first_ms
        if key_Q is log.key_E and time_Q is log.time_E:
            self._order_Q = log.order_E
        else:
            self._order_Q = np.argsort(start_Q + _within(since_Q, log.span - 1))
        self._start_Q, self._since_Q = start_Q[self._order_Q], since_Q[self._order_Q]
        self._place_by_ms: dict[int | None, np.ndarray] = {}

    def count(self, weight_E: np.ndarray, *, window_ms: int | None, delay_ms: int) -> np.ndarray:
        """The sum of the weights of the events in [t - delay - window, t - delay), int64."""
        assert delay_ms >= 0, f"delay_ms={delay_ms}"
        sum_E1 = self.log.sums(weight_E)
        begin_Q = self._place(None if window_ms is None else delay_ms + window_ms)
        return self._unsorted(sum_E1[self._place(delay_ms)] - sum_E1[begin_Q])

    def last(self, weight_E: np.ndarray, *, delay_ms: int) -> np.ndarray:
        """The time of the newest event before t - delay, or `NEVER`."""
        weighed = self.log.weighed(weight_E)
        last_Q, known_Q = self._last(weighed, delay_ms)
        return self._unsorted(_pick(weighed.time_F, last_Q, known_Q, NEVER))

    def decayed(self, weight_E: np.ndarray, *, half_life_ms: int, delay_ms: int) -> np.ndarray:
        """The decayed sum in fixed point, as of the half-life of the last event before t - delay; see `decayed_value`.

        `weight_E` is `decayed_weight`; an event may also stand for many, with their sum at the time of the last as its weight.
        """
        weighed = self.log.weighed(weight_E)
        base_F = self.log.once(f"halved each {half_life_ms}", weight_E, lambda: weighed.base(half_life_ms))
        last_Q, known_Q = self._last(weighed, delay_ms)
        sum_Q = _pick(base_F, last_Q, known_Q, 0) + _pick(weighed.sum_F1[1:], last_Q, known_Q, 0)
        return self._unsorted(sum_Q)

    def session(self, weight_E: np.ndarray, *, gap_ms: int) -> np.ndarray:
        """The sum of the weights before t in t's session, int64: 0 where the last event lies `gap_ms` or more before t."""
        weighed = self.log.weighed(weight_E)
        begins_F = weighed.begins(np.diff(weighed.time_F) >= gap_ms)
        first_F = np.maximum.accumulate(np.where(begins_F, np.arange(len(begins_F)), 0))
        last_Q, known_Q = self._last(weighed, 0)
        known_Q &= self._since_Q + self.log.first_ms - _pick(weighed.time_F, last_Q, known_Q, 0) < gap_ms
        return self._unsorted(_pick(weighed.sum_F1[1:] - weighed.sum_F1[first_F], last_Q, known_Q, 0))

    def _last(self, weighed: _Weighed, delay_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """The last of F before t - delay in sorted order, and whether it is of the query's key."""
        assert delay_ms >= 0, f"delay_ms={delay_ms}"
        before_Q = weighed.before_E1[self._place(delay_ms)]
        return before_Q - 1, before_Q > weighed.before_E1[self._place(None)]

    def _place(self, earlier_ms: int | None) -> np.ndarray:
        """In sorted order, how many places of the log come before the query's key at t - earlier_ms; None is since ever."""
        if earlier_ms not in self._place_by_ms:
            since_Q = 0 if earlier_ms is None else _within(self._since_Q - earlier_ms, self.log.span - 1)
            self._place_by_ms[earlier_ms] = np.searchsorted(self.log.place_E, self._start_Q + since_Q)
        return self._place_by_ms[earlier_ms]

    def _unsorted(self, sorted_Q: np.ndarray) -> np.ndarray:
        value_Q = np.empty_like(sorted_Q)
        value_Q[self._order_Q] = sorted_Q
        return value_Q


def _carried(code_G: np.ndarray, block_G: np.ndarray, sum_G: np.ndarray) -> np.ndarray:
    """What the groups before it hand to each group of a key: half of it for every half-life between, rounded down.

    The first groups of all keys, then the second ones, and so on.
    """
    older_G = np.zeros(len(sum_G), np.int64)
    index_G = np.arange(len(sum_G))
    begins_G = np.concatenate([[True], np.diff(code_G) != 0])[: len(sum_G)]
    rank_G = index_G - np.maximum.accumulate(np.where(begins_G, index_G, 0))
    shift_G = np.minimum(np.diff(block_G, prepend=0), 63)
    by_rank = np.split(np.argsort(rank_G, kind="stable"), np.cumsum(np.bincount(rank_G)))
    for now in by_rank[1:]:
        older_G[now] = (older_G[now - 1] + sum_G[now - 1]) >> shift_G[now]
    return older_G


def _within(value_Q: np.ndarray, most: int) -> np.ndarray:
    """From 0 to `most`; for a few queries half as slow as `np.clip`."""
    return np.minimum(np.maximum(value_Q, 0), most)


def _sums(value_E: np.ndarray) -> np.ndarray:
    """Running sums from 0 on."""
    sum_E1 = np.zeros(len(value_E) + 1, np.int64)
    np.cumsum(value_E, out=sum_E1[1:])
    return sum_E1


def _pick(value_F: np.ndarray, index_Q: np.ndarray, known_Q: np.ndarray, otherwise: int) -> np.ndarray:
    picked_Q = np.full(len(index_Q), otherwise, np.int64)
    picked_Q[known_Q] = value_F[index_Q[known_Q]]
    return picked_Q
