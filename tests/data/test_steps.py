"""Steps against their definitions written out, on any log; and what holds for all of them."""

from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from recsys.data.steps import Bots, Burst, FirstTouch, LastTouch, Sessions, Step
from recsys.duration import Duration, duration_text, milliseconds

DAY = 86_400_000
Row = tuple[int, int, int, bool]  # user, item, time, in_history
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=30)
LATER = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(9, 14), st.booleans()), max_size=8)
STEPS = [
    FirstTouch(), LastTouch(), Burst(max_events=2, within="3ms"), Bots(max_events_per_day=4), Bots(max_events_per_item=2),
    Sessions(gap="2ms"), Sessions(gap="2ms", min_events=2),
]  # fmt: skip
quick = settings(deadline=None, max_examples=60)


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32, "time_ms": pl.Int64, "in_history": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row").sort("user", "time_ms", "row")


def kept(step: Any, rows: list[Row]) -> set[int]:
    found = step(frame(rows).lazy()).collect()
    assert found.equals(found.sort("user", "time_ms", "row"))
    return set(found["row"])


def events_of(rows: list[Row]) -> list[tuple[int, int, int, int]]:
    """Timeline events in order: row, user, item, time."""
    ordered = sorted((user, time, row, item) for row, (user, item, time, is_event) in enumerate(rows) if is_event)
    return [(row, user, item, time) for user, time, row, item in ordered]


def impressions(rows: list[Row]) -> set[int]:
    return {row for row, (_, _, _, is_event) in enumerate(rows) if not is_event}


@quick
@given(rows=ROWS)
def test_one_event_of_a_pair_stays_and_all_impressions(rows: list[Row]) -> None:
    events = events_of(rows)
    first = {(user, item): row for row, user, item, _ in reversed(events)}
    last = {(user, item): row for row, user, item, _ in events}
    assert kept(FirstTouch(), rows) == impressions(rows) | set(first.values())
    assert kept(LastTouch(), rows) == impressions(rows) | set(last.values())


@quick
@given(rows=ROWS, max_events=st.integers(1, 4), within=st.integers(1, 5))
def test_a_burst_keeps_no_event_with_too_many_just_before_it(rows: list[Row], max_events: int, within: int) -> None:
    events = events_of(rows)
    calm = set()
    for i, (row, user, _, time) in enumerate(events):
        before = [e for e in events[:i] if e[1] == user and time - e[3] < within]
        if len(before) < max_events:
            calm.add(row)
    assert kept(Burst(max_events=max_events, within=f"{within}ms"), rows) == impressions(rows) | calm


@quick
@given(rows=ROWS, limit=st.integers(1, 4))
def test_a_bot_goes_with_all_its_rows(rows: list[Row], limit: int) -> None:
    days = [(user, item, time * DAY // 3, is_event) for user, item, time, is_event in rows]
    events = events_of(days)
    per_day = [(user, time // DAY) for _, user, _, time in events]
    per_item = [(user, item) for _, user, item, _ in events]
    busy = {user for user, day in per_day if per_day.count((user, day)) > limit}
    stuck = {user for user, item in per_item if per_item.count((user, item)) > limit}
    for step, bots in (
        (Bots(max_events_per_day=limit), busy),
        (Bots(max_events_per_item=limit), stuck),
        (Bots(max_events_per_day=limit, max_events_per_item=limit), busy | stuck),
    ):
        assert kept(step, days) == {row for row, (user, _, _, _) in enumerate(days) if user not in bots}


@quick
@given(rows=ROWS, gap=st.integers(1, 4), min_events=st.integers(1, 3))
def test_a_session_ends_at_a_gap_and_short_ones_leave_no_hole(rows: list[Row], gap: int, min_events: int) -> None:
    expected = {}
    for user in range(3):
        sessions: list[list[tuple[int, int]]] = []
        for time, row in sorted((time, row) for row, (u, _, time, _) in enumerate(rows) if u == user):
            if not sessions or time - sessions[-1][-1][0] > gap:
                sessions.append([])
            sessions[-1].append((time, row))
        long = [s for s in sessions if min_events == 1 or sum(rows[row][3] for _, row in s) >= min_events]
        expected |= {row: number for number, s in enumerate(long) for _, row in s}
    found = Sessions(gap=f"{gap}ms", min_events=min_events)(frame(rows).lazy()).collect()
    assert dict(found.select("row", "session").iter_rows()) == expected
    assert found.schema["session"] == pl.Int32


def test_after_sessions_every_session_counts_for_itself() -> None:
    rows = [(0, 1, 0, True), (0, 1, 1, True), (0, 1, 9, True), (0, 2, 10, True), (1, 1, 10, True), (1, 1, 11, True)]
    cut = Sessions(gap="5ms")(frame(rows).lazy())
    assert FirstTouch()(cut).collect()["row"].to_list() == [0, 2, 3, 4]
    assert LastTouch()(cut).collect()["row"].to_list() == [1, 2, 3, 5]
    assert Burst(max_events=1, within="1d")(cut).collect()["row"].to_list() == [0, 2, 4]


def test_every_kind_is_tested_here() -> None:
    assert {type(step) for step in STEPS} == set(get_args(get_args(Step)[0]))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.kind)
@quick
@given(rows=ROWS)
def test_users_may_be_divided_over_shards_and_other_queries_may_follow(step: Any, rows: list[Row]) -> None:
    together = step(frame(rows).lazy()).collect()
    shards = [step(frame(rows).filter(pl.col("user") % 2 == shard).lazy()) for shard in range(2)]
    assert pl.concat(shards).sort("user", maintain_order=True).collect().equals(together)
    assert step(frame(rows).lazy()).filter(pl.col("item") == 1).collect().equals(together.filter(item=1))
    assert step(frame(rows).lazy()).select("row").collect().equals(together.select("row"))
    assert step(frame(rows).lazy()).collect(engine="streaming").equals(together)


@pytest.mark.parametrize("step", [step for step in STEPS if step.causal], ids=lambda step: step.kind)
@quick
@given(rows=ROWS, later=LATER)
def test_a_causal_step_does_to_earlier_rows_what_it_did_without_the_later_ones(
    step: Any, rows: list[Row], later: list[Row]
) -> None:
    before = step(frame(rows).lazy()).collect()
    after = step(frame([*rows, *later]).lazy()).collect()
    assert after.filter(pl.col("row") < len(rows)).equals(before)


@pytest.mark.parametrize("step", [step for step in STEPS if not step.causal], ids=lambda step: step.kind)
def test_the_others_are_rightly_called_not_causal(step: Any) -> None:
    rows = [(0, 1, 0, True)]
    later = [(0, 1, 1, True)] * 5  # a repeat, a busy day, an item too often, a session that becomes long enough
    assert (0 in kept(step, rows)) != (0 in kept(step, [*rows, *later]))


def test_durations_are_text_with_a_unit_and_survive_a_dump() -> None:
    step = TypeAdapter(Step).validate_python({"kind": "sessions", "gap": "90m"})
    assert step.gap == 5_400_000
    assert step.model_dump(mode="json") == {"kind": "sessions", "gap": "90m", "min_events": 1}
    assert TypeAdapter(Step).validate_json(step.model_dump_json()) == step
    assert [milliseconds(text) for text in ("250ms", "1.5s", "2h", "1d", "1w")] == [250, 1500, 7_200_000, DAY, 7 * DAY]


@given(duration_ms=st.integers(0, 10**13))
def test_every_duration_can_be_written_and_read_back(duration_ms: int) -> None:
    assert milliseconds(duration_text(duration_ms)) == duration_ms


@pytest.mark.parametrize("value", [30, 1.5, "30", "m", "-1d", "1 year", "1h30m", True, None])
def test_a_duration_without_a_clear_unit_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="is not a duration: write"):
        TypeAdapter(Duration).validate_python(value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "bots"}, "give max_events_per_day"),
        ({"kind": "burst", "max_events": 3, "within": "0s"}, "greater than 0"),
        ({"kind": "burst", "max_events": 0}, "greater than or equal to 1"),
        ({"kind": "sessions", "gap": "30m", "min": 2}, "Extra inputs"),
        ({"kind": "dedupe"}, "does not match any of the expected tags"),
    ],
)
def test_a_step_that_makes_no_sense_fails_at_load(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(Step).validate_python(config)
