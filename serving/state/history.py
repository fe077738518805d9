"""A user's history as the model reads it: the timeline of the bundle, then what was posted since.

The rule is that of `recsys prepare`, so that the next bundle, made from the journal too, gives the same history: every event of
a kind that begins entries is one, an exact repeat (item, millisecond, kind) counts once, and other kinds make none. What they
say of an entry is set as a bit only for the tasks whose bits training read. Shapes: L = history, of any length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recsys.columns import FIRST_ID
from serving.bundle.bundle import Array, Bundle
from serving.state.store import Live, LiveEvent


@dataclass(frozen=True, eq=False)
class History:
    """All of a user's entries, oldest first."""

    item_L: Array  # dense ids
    time_ms_L: Array
    behaviour_L: Array  # bit t: the entry's label of task t is 1, as the ranking graph reads it
    live_L: Array  # whether the entry was posted to this endpoint
    posted_L: Array  # bit t: an event of task t was posted that made the entry, or that said so of it


def history(bundle: Bundle, user: int, live: Live) -> History:
    """The timeline of a dense user id, UNKNOWN_ID having none, and the live events beside it, by time.

    An event that the timeline already has (same item, same millisecond) counts once. Items that the bundle lacks are left out,
    and all that happened before the user was forgotten.
    """
    item_L, time_ms_L, behaviour_L = _timeline(bundle, user, live.forgotten_ms)
    if not live.events:
        return History(item_L, time_ms_L, behaviour_L, np.zeros(len(item_L), bool), np.zeros(len(item_L), np.int64))
    entries, said = _fold(bundle, live.events, item_L.tolist(), time_ms_L.tolist())
    item_N, time_ms_N = np.array(entries, np.int64).reshape(-1, 2).T
    time_ms_L, posted_L = np.concatenate([time_ms_L, time_ms_N]), np.array(said, np.int64)
    behaviour_L = np.concatenate([behaviour_L, np.zeros_like(item_N)]) | posted_L & _read(bundle)
    order_L = np.argsort(time_ms_L, kind="stable")
    live_L = order_L >= len(item_L)
    item_L = np.concatenate([item_L, item_N])
    return History(item_L[order_L], time_ms_L[order_L], behaviour_L[order_L], live_L, posted_L[order_L])


def _timeline(bundle: Bundle, user: int, forgotten_ms: int | None) -> tuple[Array, Array, Array]:
    """Items, times and behaviours of the timeline, those after a moment."""
    if user < FIRST_ID:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    item_L = bundle.timeline_of(user).astype(np.int64)
    time_ms_L = bundle.times_of(user).astype(np.int64)
    behaviour_L = bundle.behaviours_of(user) if bundle.reads_behaviours else np.zeros(len(item_L), np.int64)
    if forgotten_ms is None:
        return item_L, time_ms_L, behaviour_L
    kept_L = time_ms_L > forgotten_ms
    return item_L[kept_L], time_ms_L[kept_L], behaviour_L[kept_L]


def _fold(
    bundle: Bundle, events: Sequence[LiveEvent], items: Sequence[int], times_ms: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int]]:
    """Item and time of each entry that the events make, and what they say of every entry, those of the timeline first."""
    begins, bits = bundle.facts.serving.history, {task: 1 << bit for bit, task in enumerate(bundle.facts.tasks)}
    known = set(zip(items, times_ms, strict=True))
    entries: list[tuple[int, int]] = []
    said, passed = [0] * len(items), 0
    newest: dict[int, int] = {}  # item -> its newest entry so far
    begun: set[tuple[int, int, str]] = set()
    if begins:  # what is said of an event of this millisecond has an entry to be said of, whatever the order of their ids
        events = sorted(events, key=lambda each: (each.time_ms, each.event not in begins))
    for each in events:
        while passed < len(items) and times_ms[passed] <= each.time_ms:
            newest[items[passed]], passed = passed, passed + 1
        item, bit = bundle.item_index.find(each.item_id), bits.get(each.event, 0)
        if item < FIRST_ID:
            continue
        if begins and each.event not in begins:
            if item in newest:
                said[newest[item]] |= bit
        elif (item, each.time_ms) not in known and (item, each.time_ms, each.event) not in begun:
            begun.add((item, each.time_ms, each.event))
            newest[item] = len(said)
            entries.append((item, each.time_ms))
            said.append(bit)
    return entries, said


def _read(bundle: Bundle) -> int:
    """The bits of the tasks that an entry of a history shows: none where the ranking graph does not read behaviours."""
    if not bundle.reads_behaviours:
        return 0
    shown = bundle.facts.tasks_in_history
    return sum(1 << bit for bit, task in enumerate(bundle.facts.tasks) if shown is None or task in shown)
