"""A row sees the values that held at its time, as far as they were known by then."""

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.slowly import as_of

TABLE = {"id": pl.Int32, "event_time_ms": pl.Int64, "created_ms": pl.Int64, "price": pl.Int64}
ROWS = {"item": pl.Int32, "time_ms": pl.Int64}


def seen(rows: list[Any], table: list[Any]) -> list[int | None]:
    frame = pl.LazyFrame(table, schema=TABLE, orient="row")
    found = as_of(pl.LazyFrame(rows, schema=ROWS, orient="row"), frame, on="item", features=["price"]).collect()
    assert found.select("item", "time_ms").rows() == rows
    assert found.columns == ["item", "time_ms", "asof_price"]
    return found["asof_price"].to_list()


def test_a_value_holds_from_its_time_until_the_next() -> None:
    table = [(7, 100, None, 10), (7, 200, None, 20), (8, 0, None, 99)]
    assert seen([(7, t) for t in (99, 100, 199, 200, 999)], table) == [None, 10, 10, 20, 20]


def test_a_correction_counts_from_the_moment_it_becomes_known() -> None:
    table = [(7, 100, 100, 10), (7, 100, 500, 11)]  # the price at 100 was 11, which nobody knew before 500
    assert seen([(7, t) for t in (100, 499, 500, 999)], table) == [10, 10, 11, 11]


def test_a_late_row_about_the_past_does_not_hide_a_newer_value() -> None:
    table = [(7, 300, 300, 30), (7, 100, 500, 10)]
    assert seen([(7, t) for t in (299, 300, 500, 999)], table) == [None, 30, 30, 30]


def test_a_row_known_ahead_of_time_waits_until_it_holds() -> None:
    assert seen([(7, 250), (7, 300)], [(7, 100, 100, 10), (7, 300, 200, 30)]) == [10, 30]


def test_without_created_a_row_is_known_when_it_holds() -> None:
    table = pl.LazyFrame({"id": ["a", "a"], "event_time_ms": [5, 9], "tags": [["x"], ["y", "z"]]})
    rows = pl.LazyFrame({"user": ["a", "b", "a"], "time_ms": [9, 9, 5]})
    found = as_of(rows, table, on="user", features=["tags"]).collect()
    assert found["asof_tags"].to_list() == [["y", "z"], None, ["x"]]


def test_tables_and_rows_may_be_empty() -> None:
    assert seen([(7, 1)], []) == [None]
    assert seen([], [(7, 1, 1, 1)]) == []


SMALL = st.integers(0, 6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), SMALL), max_size=15),
    table=st.lists(st.tuples(st.integers(0, 2), SMALL, st.none() | SMALL), max_size=12),
)
def test_equal_to_the_definition_written_out(rows: list[Any], table: list[Any]) -> None:
    expected = []
    for key, time in rows:
        best: tuple[int, int, int] | None = None
        for place, (row_key, event, created_or_none) in enumerate(table):
            created = event if created_or_none is None else created_or_none
            if row_key == key and event <= time and created <= time:
                best = max(best or (-1, -1, -1), (event, created, place))
        expected.append(best and best[2])
    assert seen(rows, [(*row, place) for place, row in enumerate(table)]) == expected


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), SMALL), min_size=1, max_size=15),
    table=st.lists(st.tuples(st.integers(0, 2), SMALL, SMALL, SMALL), max_size=12),
    later=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(7, 20), SMALL), min_size=1, max_size=3),
)
def test_what_becomes_known_later_changes_no_earlier_row(rows: list[Any], table: list[Any], later: list[Any]) -> None:
    assert seen(rows, [*table, *later]) == seen(rows, table)
