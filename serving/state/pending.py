"""What a process has written to its journal and not yet seen in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from serving.journal.journal import Appended
from serving.state.store import Live, LiveEvent

MAX_UNSEEN = 10_000  # events that answers of this process see while the store is away; the journal has all


class Pending:
    """The ranges of the journal's files that the store was not yet told, and those that it could not be told."""

    def __init__(self) -> None:
        self._begun: dict[str, dict[int, int]] = {}  # file -> begin -> end
        self._failed: set[Appended] = set()
        self._end: dict[str, int] = {}
        self._told: dict[str, int] = {}  # the marks that the store took

    def begin(self, place: Appended) -> None:
        self._begun.setdefault(place.file, {})[place.begin] = place.end
        self._end[place.file] = place.end

    def told(self, file: str) -> int:
        """Up to where the store said that it has the file."""
        return self._told.get(file, 0)

    def applied_after(self, place: Appended) -> int:
        """Up to where all is in the store once this range is."""
        others = (begin for begin in self._begun[place.file] if begin != place.begin)
        return min(others, default=self._end[place.file])

    def end(self, place: Appended, offset: int) -> None:
        """The store has the range, and took `offset` as its mark."""
        self._told[place.file] = max(self._told.get(place.file, 0), offset)
        del self._begun[place.file][place.begin]

    def fail(self, place: Appended) -> None:
        self._failed.add(place)

    def ends(self) -> dict[str, int]:
        """How long each file is now."""
        return dict(self._end)

    def settle(self, ends: Mapping[str, int]) -> bool:
        """The store was told all that stood before `ends`; whether it lacks nothing now but what is on its way."""
        for place in [place for place in self._failed if place.end <= ends.get(place.file, 0)]:
            self._failed.discard(place)
            del self._begun[place.file][place.begin]
        return not self._failed

    def is_kept_by(self, marks: Mapping[str, int]) -> bool:
        """Whether the store's marks are as far as it said."""
        return all(marks.get(file, 0) >= offset for file, offset in self._told.items())


class Unseen:
    """Events and forgotten users that the store could not be told, bounded."""

    def __init__(self) -> None:
        self._events: dict[str, dict[str, LiveEvent]] = {}
        self._forgotten: dict[str, int] = {}
        self._count = 0

    def add(self, events: Sequence[tuple[str, LiveEvent]]) -> None:
        for user_id, each in events[: MAX_UNSEEN - self._count]:
            self._events.setdefault(user_id, {})[each.id] = each
            self._count += 1

    def forget(self, user_id: str, now_ms: int) -> None:
        self._count -= len(self._events.pop(user_id, {}))
        if len(self._forgotten) < MAX_UNSEEN:
            self._forgotten[user_id] = now_ms

    def has(self, user_id: str, id: str) -> bool:
        return id in self._events.get(user_id, {})

    def joined(self, user_id: str, live: Live) -> Live:
        """What the store says and what it does not know yet."""
        forgotten_ms = self._forgotten.get(user_id, live.forgotten_ms)
        known = {each.id: each for each in live.events} | self._events.get(user_id, {})
        events = (each for each in known.values() if min(each.time_ms, each.received_ms) > (forgotten_ms or -1))
        return replace(live, events=tuple(sorted(events, key=lambda each: (each.time_ms, each.id))), forgotten_ms=forgotten_ms)

    def clear(self) -> None:
        self._events.clear()
        self._forgotten.clear()
        self._count = 0
