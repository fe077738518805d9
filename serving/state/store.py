"""What every store of recent events does. Items are named by their external ids, since dense ids belong to a model.

The store is a view of the journal: whatever is in it can be made again from there. So every write may say how far a file of the
journal has been applied (`Mark`), which is kept in the same transaction: a store that lost its newest writes knows that it did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

GONE_KEPT_MS = 86_400_000  # an idempotency key counts as long as its event is kept, and so much longer
GONE_MAX = 10_000  # such keys of one user


class StoreDownError(Exception):
    """The store does not answer, or not in time. Never the caller's fault: the endpoint answers without it and says so."""


@dataclass(frozen=True)
class LiveEvent:
    """An event as it is kept. `id` is its idempotency key among its user's events; made here where the client sent none."""

    id: str
    item_id: str
    event: str
    time_ms: int
    request_id: str | None = None
    received_ms: int = 2**53  # when the server got it; what was received before a user was forgotten does not count


@dataclass(frozen=True)
class Live:
    """A user's recent events, oldest first (time, then id), and the moment up to which the user was forgotten."""

    events: tuple[LiveEvent, ...] = ()
    forgotten_ms: int | None = None  # nothing from before counts, neither here nor in a bundle
    whole: bool = True  # False: the store is away, or being made again, so that events may be missing


class Mark(NamedTuple):
    """All lines of a file of the journal from `begin` to `offset` have been applied.

    A store takes it where it had those before `begin`, too: one that came back empty, or older, must not seem to have them.
    """

    journal: str  # the journal's id
    file: str
    begin: int
    offset: int


class Store(Protocol):
    """Every method raises StoreDownError where the store is away or too slow. Bounds and time to live are the store's own.

    Writes give the same state whatever their order and however often they come, so that the journal may be applied again.
    """

    async def recent(self, user_id: str, journal: str | None = None) -> Live:
        """`journal`: the id of the journal of which the store should be a view; `whole` says whether it is."""
        ...

    async def known(self, events: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether the users had an event of that id before."""
        ...

    async def add(self, events: Sequence[tuple[str, LiveEvent]], mark: Mark | None = None) -> list[bool]:
        """Keep events of users, all of them or none.

        Whether each counts: not where its user had another event of that id before, and not where it happened or was received
        before its user was forgotten. The very same event may come again, from the journal, and still counts.
        """
        ...

    async def forget(self, user_id: str, now_ms: int, mark: Mark | None = None) -> int:
        """Delete what a user did or what was received up to `now_ms`, and remember that; how many events there were."""
        ...

    async def marks(self, journal: str) -> tuple[dict[str, int], bool]:
        """How far each file was applied, and whether the store is a whole view: not one that is empty or being made."""
        ...

    async def mark_whole(self, journal: str, applied: Mapping[str, int]) -> bool:
        """All files of the journal are applied up to `applied`; false where the store has lost some of it meanwhile."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
