"""Prefetching gives the same items, and neither loses an exception nor leaves a thread."""

import threading
import time
from collections.abc import Iterator

import pytest

from recsys.prefetch import prefetch


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("depth", [1, 2, 50])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_the_same_items_in_the_same_order(depth: int, count: int) -> None:
    assert list(prefetch(iter(range(count)), depth)) == list(range(count))
    assert threads() == 0


def test_an_exception_comes_after_the_items_before_it() -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise ZeroDivisionError("item 3")

    items = prefetch(broken())
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError, match="item 3"):
        next(items)
    assert threads() == 0


def test_it_works_ahead_and_no_further_than_asked() -> None:
    made: list[int] = []

    def count() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    items = prefetch(count(), depth=3)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1, 2, 3]  # the one in use and three ahead
    items.close()
    assert threads() == 0


@pytest.mark.parametrize("leave", ["break", "close", "forget", "never begin"])
def test_no_thread_stays_when_the_consumer_stops_early(leave: str) -> None:
    items = prefetch(iter(range(1000)))
    if leave == "break":
        for item in prefetch(iter(range(1000))):
            if item == 3:
                break
    elif leave != "never begin":
        next(items)
    if leave == "close":
        items.close()
    del items
    assert threads() == 0
