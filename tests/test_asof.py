"""Every answer is the definition's, at any order of events, and cutting a log in two changes no bit."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.asof import (
    NEVER,
    Log,
    count_before,
    decayed_before,
    decayed_value,
    decayed_weight,
    last_before,
    session_position,
)

EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 40), st.booleans()), max_size=25)  # key, time, flag
QUERIES = st.lists(st.tuples(st.integers(0, 3), st.integers(-10, 60)), max_size=15)
# Wide keys and times do not fit into one integer together, so that keys are numbered first.
SCALES = st.sampled_from([(1, 1), (2**40, 1), (2**40, 2**30)])


def columns(rows: list[Any], width: int) -> list[np.ndarray]:
    return list(np.array(rows, np.int64).reshape(-1, width).T.copy())


def arrays(events: list[Any], queries: list[Any], scale: tuple[int, int] = (1, 1)) -> tuple[Any, ...]:
    (key_E, time_E, flag_E), (key_Q, time_Q) = columns(events, 3), columns(queries, 2)
    return key_E * scale[0], time_E * scale[1], flag_E > 0, key_Q * scale[0], time_Q * scale[1]


@settings(max_examples=80, deadline=None)
@given(EVENTS, QUERIES, st.none() | st.integers(1, 20), st.integers(0, 5), SCALES)
def test_counts_are_those_of_the_definition(events: Any, queries: Any, window: int | None, delay: int, scale: Any) -> None:
    unit = scale[1]
    window_ms = None if window is None else window * unit
    found = count_before(*arrays(events, queries, scale), window_ms=window_ms, delay_ms=delay * unit)
    assert found.dtype == np.int64
    assert found.tolist() == [
        sum(k == key and flag and t - delay - (window or 999) <= at < t - delay for key, at, flag in events) for k, t in queries
    ]


@settings(max_examples=60, deadline=None)
@given(EVENTS, QUERIES, st.integers(0, 5), SCALES)
def test_last_times_are_those_of_the_definition(events: Any, queries: Any, delay: int, scale: Any) -> None:
    key_E, time_E, flag_E, key_Q, time_Q = arrays(events, queries, scale)
    found = Log(key_E, time_E).ask(key_Q, time_Q).last(flag_E, delay_ms=delay * scale[1])
    assert found.tolist() == [
        max((at * scale[1] for key, at, flag in events if key == k and flag and at < t - delay), default=NEVER)
        for k, t in queries
    ]
    plain = last_before(key_E[flag_E], time_E[flag_E], key_Q, time_Q, delay_ms=delay * scale[1])
    assert (plain == found).all()


@settings(max_examples=80, deadline=None)
@given(EVENTS, QUERIES, st.sampled_from([1, 3, 7, 100]), st.integers(0, 5), SCALES)
def test_decayed_sums_are_those_of_the_definition(events: Any, queries: Any, half: int, delay: int, scale: Any) -> None:
    found = decayed_before(*arrays(events, queries, scale), half_life_ms=half * scale[1], delay_ms=delay * scale[1])
    expected = [
        sum(2.0 ** -((t - delay - at) / half) for key, at, flag in events if key == k and flag and at < t - delay)
        for k, t in queries
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=2**-30)


@settings(max_examples=60, deadline=None)
@given(EVENTS, QUERIES, st.integers(1, 10))
def test_sessions_are_those_of_the_definition(events: Any, queries: Any, gap: int) -> None:
    key_E, time_E, flag_E, key_Q, time_Q = arrays(events, queries)
    expected = []
    for k, t in queries:
        edge, position = t, 0
        for at in sorted((at for key, at, flag in events if key == k and flag and at < t), reverse=True):
            if edge - at >= gap:
                break
            edge, position = at, position + 1
        expected.append(position)
    assert session_position(key_E[flag_E], time_E[flag_E], key_Q, time_Q, gap_ms=gap).tolist() == expected


def test_a_decayed_sum_by_hand() -> None:
    key, time = np.zeros(3, np.int64), np.array([0, 1000, 1000])
    found = decayed_before(key, time, np.ones(3, bool), key, np.array([1000, 2000, 3500]), half_life_ms=1000, delay_ms=0)
    # One event a half-life ago; then it is 1/4 and two more are 1/2; 1500 ms later 2^-1.5 of that.
    assert found.tolist() == [0.5, 1.25, 1.25 * 2**-1.5]


def test_decay_over_years_neither_overflows_nor_drifts() -> None:
    """One event every half-life for 30,000 half-lives: the sum after each is 1 + 1/2 + 1/4 + ... = 2."""
    time = np.arange(30_000, dtype=np.int64) * 3_600_000
    key = np.zeros(len(time), np.int64)
    found = decayed_before(key, time, np.ones(len(time), bool), key, time + 1, half_life_ms=3_600_000, delay_ms=0)
    np.testing.assert_allclose(found[64:], 2 * 2 ** -(1 / 3_600_000), rtol=1e-9)


def test_long_ago_is_nothing() -> None:
    one = np.ones(1, np.int64)
    assert decayed_before(one, one, one > 0, one, one * 10**12, half_life_ms=1, delay_ms=0).tolist() == [0.0]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 40), st.sampled_from([1000, 33_333, 10**7]),
)  # fmt: skip
def test_a_cut_of_the_log_changes_no_bit_of_a_decayed_sum(events: Any, cut: int, half_life_ms: int) -> None:
    events = sorted(events, key=lambda event: event[1])
    cut = sum(time < events[min(cut, len(events) - 1)][1] for _, time, _ in events)  # not within a moment
    key, time, flag = columns(events, 3)
    weight = decayed_weight(time, half_life_ms) * flag
    whole = decayed_before(key, time, flag > 0, key, time, half_life_ms=half_life_ms, delay_ms=0)

    first, keys = Log(key[:cut], time[:cut]), np.unique(key[:cut])
    end = first.ask(keys, np.full(len(keys), time[cut]))
    carried = end.decayed(weight[:cut], half_life_ms=half_life_ms, delay_ms=0)
    last = end.last(weight[:cut], delay_ms=0)
    known = last != NEVER
    rest_key, rest_time = np.append(keys[known], key[cut:]), np.append(last[known], time[cut:])
    rest_weight = np.append(carried[known], weight[cut:])
    asked = Log(rest_key, rest_time).ask(key[cut:], time[cut:])
    sums = asked.decayed(rest_weight, half_life_ms=half_life_ms, delay_ms=0)
    found = decayed_value(sums, asked.last(rest_weight, delay_ms=0), time[cut:], half_life_ms)
    assert found.tobytes() == whole[cut:].tobytes()


@settings(max_examples=40, deadline=None)
@given(EVENTS, QUERIES, st.randoms(use_true_random=False))
def test_neither_the_order_of_events_nor_other_keys_change_a_bit(events: Any, queries: Any, random: Any) -> None:
    others = [(key + 7, time * 3, flag) for key, time, flag in events]
    mixed = [*events, *others]
    random.shuffle(mixed)
    one, other = (decayed_before(*arrays(rows, queries), half_life_ms=7, delay_ms=0) for rows in (events, mixed))
    assert one.tobytes() == other.tobytes()


def test_rows_of_a_log_that_ask_about_it_do_not_see_their_own_moment() -> None:
    key, time = np.array([5, 5, 5, 5]), np.array([30, 10, 10, 20])
    log = Log(key, time)
    assert log.ask(key, time).count(np.ones(4, bool), window_ms=None, delay_ms=0).tolist() == [3, 0, 0, 2]
    assert log.ask(key, time).count(np.ones(4, bool), window_ms=10, delay_ms=0).tolist() == [1, 0, 0, 2]


def test_a_negative_delay_is_refused() -> None:
    one = np.ones(1, np.int64)
    with pytest.raises(AssertionError, match="delay_ms=-1"):
        count_before(one, one, one > 0, one, one, window_ms=None, delay_ms=-1)


def test_importing_needs_numpy_only() -> None:
    code = "import sys, recsys.asof; assert not {'polars', 'torch', 'pydantic', 'pyarrow'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
