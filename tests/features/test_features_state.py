"""What is carried from one batch to the next: no bit tells a log in parts from a log in one piece."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_features import FEATURES, ROWS, bits, frame

import recsys
from recsys.errors import InputError
from recsys.features import Count, Frame, State, compute, look_up


def in_parts(rows: list[Any], cuts: list[int]) -> tuple[dict[str, np.ndarray], State | None]:
    """Rows in order of time, cut anywhere, also within a moment, one batch after the other."""
    parts, state = [], None
    for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        values, state = compute(FEATURES, frame(rows[begin:end]), frame(rows[begin:end]), state)
        parts.append(values)
    return {name: np.concatenate([part[name] for part in parts]) for name in FEATURES}, state


@settings(max_examples=60, deadline=None)
@given(ROWS, st.lists(st.integers(0, 25), min_size=1, max_size=4))
def test_batches_give_the_bits_and_the_state_of_one_go(rows: list[Any], cuts: list[int]) -> None:
    rows = sorted(rows, key=lambda row: row[3])
    cuts = sorted(min(cut, len(rows)) for cut in cuts)
    whole, state = compute(FEATURES, frame(rows), frame(rows))
    found, carried = in_parts(rows, cuts)
    assert bits(found) == bits(whole)
    assert carried is not None
    assert flat(carried) == flat(state)


def flat(state: State) -> dict[str, Any]:
    columns = {**state.tail.keys, **state.tail.flags, "time_ms": state.tail.time_ms}
    summaries = {
        name: (summary.key_K.tolist(), summary.last_K.tolist(), summary.number_K.tolist())
        for name, summary in state.summaries.items()
    }
    return {name: column.tolist() for name, column in columns.items()} | summaries | {"as_of": state.time_ms}


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS, st.integers(0, 8))
def test_requests_after_a_state_see_it_and_what_came_since(rows: list[Any], asked: list[Any], pause: int) -> None:
    """Online: a state as of the night, the events since then, and candidates now."""
    rows = sorted(rows, key=lambda row: row[3])
    day = rows[: len(rows) // 2]
    since = rows[len(rows) // 2 :]
    now = [(*row[:3], 30 + pause, *row[4:]) for row in asked]
    _, state = compute(FEATURES, frame(day), frame(day))
    found = look_up(FEATURES, frame(since), frame(now), state)
    assert bits(found) == bits(look_up(FEATURES, frame(rows), frame(now)))


def test_only_what_later_events_need_is_kept() -> None:
    rows = frame([(2, 4, 2, hour, 1, 0) for hour in range(1000)])
    _, state = compute(FEATURES, rows, rows)
    assert len(state.tail) == 11  # hours 989 to 999: the window of 10 h before 999 goes back the furthest
    _, state = compute({"clicks": FEATURES["clicks"]}, rows, rows)
    assert len(state.tail) == 1  # the newest moment, at which another row may still follow
    _, state = compute(FEATURES, rows, rows, until_ms=5000 * 3_600_000)
    assert len(state.tail) == 0


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = frame([(2, 4, 2, 0, 1, 1), (3, 5, 2, 4, 1, 0), (2, 5, 3, 6, 0, 1)])
    _, state = compute(FEATURES, rows, rows)
    for name in ("one", "two"):
        state.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert flat(State.load(tmp_path / "one")) == flat(state)
    later = frame([(2, 4, 2, 7, 1, 1), (3, 5, 2, 9, 1, 0)])
    one, other = (compute(FEATURES, later, later, kept)[0] for kept in (state, State.load(tmp_path / "one")))
    assert bits(one) == bits(other)


def test_a_batch_without_events_keeps_the_state() -> None:
    rows, none = frame([(2, 4, 2, 0, 1, 1), (3, 5, 2, 4, 1, 0)]), frame([])
    _, state = compute(FEATURES, rows, rows)
    values, same = compute(FEATURES, none, none, state)
    assert flat(same) == flat(state)
    assert all(len(value) == 0 for value in values.values())
    _, empty = compute(FEATURES, none, none)
    assert bits(compute(FEATURES, rows, rows, empty)[0]) == bits(look_up(FEATURES, rows, rows))


def test_late_rows_and_unknown_tallies_are_refused() -> None:
    rows = frame([(2, 4, 2, 5, 1, 1)])
    late = frame([(2, 4, 2, 4, 1, 1)])
    _, state = compute(FEATURES, rows, rows)
    with pytest.raises(InputError, match="event at time_ms 14400000 comes before 18000000"):
        compute(FEATURES, late, late, state)
    with pytest.raises(InputError, match="query at time_ms 14400000 comes before 18000000"):
        look_up(FEATURES, rows, late, state)
    with pytest.raises(InputError, match="the state knows no Amount"):
        look_up({"new": Count(by=("user",), event="buy", window="3h")}, rows, rows, state)


def test_a_feature_may_take_another_name_or_scale_and_keep_its_state() -> None:
    rows = frame([(2, 4, 2, 5, 1, 1)])
    later = frame([(2, 4, 2, 6, 1, 1)])
    _, state = compute({"a": Count(by=("user",), event="buy")}, rows, rows)
    assert look_up({"b": Count(by=("user",), event="buy", log1p=False)}, later, later, state)["b"].tolist() == [1]


def test_large_random_log_in_days() -> None:
    """Sizes at which sorting takes other paths than in a handful of rows."""
    random = np.random.default_rng(5)
    size = 30_000
    columns = [random.integers(0, high, size) for high in (300, 2000, 20, 10 * 24, 2, 2)]
    rows = frame(sorted(zip(*columns, strict=True), key=lambda row: (row[3], row[0])))
    whole, _ = compute(FEATURES, rows, rows)
    state, days = None, []
    for day in range(10):
        batch: Frame = rows.take(np.flatnonzero(rows.time_ms // (24 * 3_600_000) == day))
        values, state = compute(FEATURES, batch, batch, state)
        days.append(values)
    assert bits({name: np.concatenate([values[name] for values in days]) for name in whole}) == bits(whole)


def test_the_folder_needs_neither_polars_nor_torch() -> None:
    code = (
        "import sys, types; package = types.ModuleType('recsys.data'); package.__path__ = [sys.argv[1]];"
        "sys.modules['recsys.data'] = package; import recsys.features;"
        "assert not {'polars', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(recsys.__path__[0]) / "data")], check=True)
