"""Jagged arrays against plain lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.jagged import Jagged, gather, ranges

LISTS = st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=6)


def lists(jagged: Jagged) -> list[list[int]]:
    return [jagged.item_E[begin:end].tolist() for begin, end in zip(jagged.offset_U1[:-1], jagged.offset_U1[1:], strict=True)]


@settings(deadline=None)
@given(rows=LISTS, begin=st.integers(0, 7), end=st.integers(0, 9), count=st.integers(0, 8))
def test_slices_are_those_of_lists(rows: list[list[int]], begin: int, end: int, count: int) -> None:
    jagged = Jagged.from_lists(rows)
    assert lists(jagged) == rows
    assert len(jagged) == len(rows)
    assert jagged.lengths.tolist() == [len(row) for row in rows]
    assert jagged.row_E.tolist() == [number for number, row in enumerate(rows) for _ in row]
    assert lists(jagged.last(count)) == [row[max(0, len(row) - count) :] for row in rows]
    assert lists(jagged.drop_last(count)) == [row[: max(0, len(row) - count)] for row in rows]
    begin, end = min(begin, end, len(rows)), max(begin, end)
    assert lists(jagged.slice(begin, end)) == rows[begin:end]


@settings(deadline=None)
@given(rows=LISTS.filter(len), data=st.data())
def test_take_gathers_in_the_order_asked_for(rows: list[list[int]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    assert lists(Jagged.from_lists(rows).take(np.array(wanted, np.int64))) == [rows[row] for row in wanted]


def test_ranges_are_joined() -> None:
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.array([], np.int64), np.array([], np.int64)).tolist() == []


@settings(deadline=None)
@given(size=st.integers(0, 30), data=st.data())
def test_gathered_slices_are_those_of_the_array(size: int, data: st.DataObject) -> None:
    value_E = np.arange(size, dtype=np.int32) * 7
    slices = data.draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, 12)), max_size=8))
    start_N = np.array([begin for begin, _ in slices], np.int64)
    length_N = np.array([min(length, size - begin) for begin, length in slices], np.int64)
    found = gather(value_E, start_N, length_N)
    expected = [value for begin, length in zip(start_N, length_N, strict=True) for value in value_E[begin : begin + length]]
    assert found.tolist() == expected
    assert found.dtype == np.int32
    assert not np.shares_memory(found, value_E)


@pytest.mark.parametrize("offsets", [[1, 3], [0, 2], [0, 3, 2, 3]])
def test_offsets_that_do_not_fit_are_our_own_mistake(offsets: list[int]) -> None:
    with pytest.raises(AssertionError):
        Jagged(np.arange(3), np.array(offsets))
