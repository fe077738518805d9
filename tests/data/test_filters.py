"""Minimum counts over parts of the log: the largest subset in which every user and every item has enough."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.filters import Filters, check_dropped, check_timeline_left, k_core
from recsys.errors import InputError

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=60)
NUM_USERS, NUM_ITEMS = 7, 8  # one of each never has an event


def run(pairs: list[tuple[int, int]], filters: Filters, *, parts: int = 3) -> tuple[set[int], set[int]]:
    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in range(parts):
            chosen = np.array(pairs[part::parts], np.int32).reshape(-1, 2)
            yield chosen[:, 0], chosen[:, 1]

    keep_U, keep_I = k_core(read, NUM_USERS, NUM_ITEMS, filters)
    assert (keep_U.dtype, keep_I.dtype, len(keep_U), len(keep_I)) == (bool, bool, NUM_USERS, NUM_ITEMS)
    return set(np.flatnonzero(keep_U)), set(np.flatnonzero(keep_I))


@settings(deadline=None)
@given(pairs=PAIRS, min_user=st.integers(0, 4), min_item=st.integers(0, 4), parts=st.integers(1, 60))
def test_what_stays_is_the_largest_core(pairs: list[tuple[int, int]], min_user: int, min_item: int, parts: int) -> None:
    users, items = set(range(NUM_USERS)), set(range(NUM_ITEMS))
    while True:  # the definition, written out
        left = [(u, i) for u, i in pairs if u in users and i in items]
        of_user, of_item = Counter(u for u, _ in left), Counter(i for _, i in left)
        smaller = (
            {u for u in users if min_user < 2 or of_user[u] >= min_user},
            {i for i in items if min_item < 2 or of_item[i] >= min_item},
        )
        if smaller == (users, items):
            break
        users, items = smaller
    assert run(pairs, Filters(min_user_events=min_user, min_item_events=min_item), parts=parts) == (users, items)


@settings(deadline=None)
@given(pairs=PAIRS)
def test_once_means_items_and_then_users_of_what_is_left(pairs: list[tuple[int, int]]) -> None:
    of_item = Counter(i for _, i in pairs)
    items = {i for i in range(NUM_ITEMS) if of_item[i] >= 3}
    of_user = Counter(u for u, i in pairs if i in items)
    users = {u for u in range(NUM_USERS) if of_user[u] >= 2}
    assert run(pairs, Filters(min_user_events=2, min_item_events=3, iterate=False)) == (users, items)


def test_a_long_chain_falls_to_its_last_link() -> None:
    chain = [(n, n) for n in range(6)] + [(n, n + 1) for n in range(6)]  # user n has items n and n + 1; item 0 is short of one
    once = Filters(min_user_events=2, min_item_events=2, iterate=False)
    assert run(chain, once) == ({1, 2, 3, 4}, {1, 2, 3, 4, 5})
    assert run(chain, Filters(min_user_events=2, min_item_events=2)) == (set(), set())


def test_without_minimum_counts_everything_stays() -> None:
    assert run([(0, 0)], Filters()) == (set(range(NUM_USERS)), set(range(NUM_ITEMS)))


def test_counts_that_leave_too_little_stop_the_run() -> None:
    filters = Filters(min_user_events=5, min_item_events=3)
    check_dropped(filters, rows=100, kept=50)
    with pytest.raises(InputError) as some:
        check_dropped(filters, rows=100, kept=49)
    assert str(some.value) == (
        "filters.min_user_events 5 and min_item_events 3 drop 51% of the rows: "
        "lower them, or raise filters.max_drop_share above 0.51"
    )
    with pytest.raises(InputError, match=r"drop 100% of the rows: lower them$"):
        check_dropped(filters.model_copy(update={"max_drop_share": 1}), rows=100, kept=0)
    with pytest.raises(InputError, match=r"^log.csv: filters.min_user_events and min_item_events leave no timeline event"):
        check_timeline_left("log.csv", 0)
