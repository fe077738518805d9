"""Journal and store together: an event is kept once it is in the journal, and the store is made to follow.

Where the store was away, lost its newest writes or came back empty, the lines of the journal that it lacks are applied, in the
background and as often as it takes; each file's mark says from where on. Answers meanwhile say that events may be missing.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from recsys.errors import InputError
from serving.event_id import event_id
from serving.journal.journal import FORGOTTEN, Appended, Journal, lines
from serving.journal.records import RESERVED, event_of, forgotten_of
from serving.schema import Event
from serving.state.pending import Pending, Unseen
from serving.state.store import Live, LiveEvent, Mark, Store, StoreDownError

RETRY_S = 0.5  # between attempts while the store is away
CHECK_S = 5.0  # between looks whether it still has what it was told
WAIT_S = 0.05  # between attempts while another process applies the journal, at start
START_S = 0.05  # how long the first answers wait for what is left to apply

logger = logging.getLogger("recsys.serving")


class Reconciler:
    def __init__(self, store: Store, journal: Journal | None, *, ttl_s: int) -> None:
        """Without a journal the store is all there is, and a post while it is away is refused."""
        self.store, self.journal, self.ttl_ms = store, journal, ttl_s * 1000
        self._id = journal.id if journal else None
        self._pending, self._unseen = Pending(), Unseen()
        self._behind = asyncio.Event()  # the store lacks something
        self._tried = asyncio.Event()  # the first attempt to mend that is over
        if journal is not None:
            self._behind.set()  # until it was looked at
        self._task: asyncio.Task[None] | None = None
        self._last_ms, self._is_new = 0, True

    @property
    def is_whole(self) -> bool:
        """Whether the store has all that this process knows of."""
        return self.journal is None or not self._behind.is_set()

    async def ready(self, timeout_s: float = 5) -> None:
        """Return once the events of processes that were killed are in the store, or it is known to be away, or time is up."""
        if self.journal is not None:
            self._run_in_background()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._tried.wait()

    async def recent(self, user_id: str) -> Live:
        """What is known of a user; `whole` says whether it is all. Never raises StoreDownError."""
        if self._is_new and not self._tried.is_set():
            await self.ready(START_S)
            self._is_new = False
        try:
            live = await self.store.recent(user_id, self._id)
        except StoreDownError:
            live = Live(whole=False)
        if self.journal is None:
            return live
        if not live.whole:
            self._behind.set()
        return self._unseen.joined(user_id, replace(live, whole=False)) if self._behind.is_set() else live

    async def add(self, posted: Sequence[Event]) -> tuple[list[bool], bool]:
        """Whether each event counts (see `Store.add`), and whether the store has them already.

        Raises InputError for a kind that only the server writes, JournalDownError, and without a journal StoreDownError.
        """
        now_ms = self._now_ms()
        events = [(each.user_id, _live(each, now_ms)) for each in posted]
        repeated = await self._repeated(posted)
        new = [event for event, is_repeated in zip(events, repeated, strict=True) if not is_repeated]
        added, is_in_store = await self._add(new, now_ms) if new else ([], True)
        left = iter(added)
        return [not is_repeated and next(left) for is_repeated in repeated], is_in_store

    async def forget(self, user_id: str) -> tuple[int, bool]:
        """How many events were deleted, and whether the store has forgotten already. Raises as `add`."""
        now_ms = self._last_ms = self._now_ms()  # what is received in the same millisecond comes after
        if self.journal is None:
            return await self.store.forget(user_id, now_ms), True
        self._run_in_background()
        place = self.journal.forgotten(user_id, now_ms)
        self._pending.begin(place)
        try:
            await self.journal.durable()
            mark = self._mark(place)
            deleted = await self.store.forget(user_id, now_ms, mark)
        except BaseException as error:
            self._unseen.forget(user_id, now_ms)
            self._fail(place)
            if isinstance(error, StoreDownError):
                return 0, False
            raise
        self._pending.end(place, mark.offset)
        return deleted, True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.store.close()
        if self.journal is not None:
            self.journal.close()

    async def _add(self, events: Sequence[tuple[str, LiveEvent]], now_ms: int) -> tuple[list[bool], bool]:
        if self.journal is None:
            return await self.store.add(events), True
        self._run_in_background()
        place = self.journal.events(events, now_ms)
        self._pending.begin(place)
        try:
            await self.journal.durable()
            mark = self._mark(place)
            added = await self.store.add(events, mark)
        except BaseException as error:  # a caller who stopped waiting: whether the store has them is not known
            self._unseen.add(events)
            self._fail(place)
            if isinstance(error, StoreDownError):
                return [True] * len(events), False
            raise
        self._pending.end(place, mark.offset)
        return added, True

    async def _repeated(self, posted: Sequence[Event]) -> list[bool]:
        """Which events came before, by their ids, as far as that can be told: they need not be in the journal again."""
        seen: set[tuple[str, str]] = set()
        named = [(each.user_id, each.id) for each in posted if each.id is not None]
        with suppress(StoreDownError):
            known = await self.store.known(named) if named else []
            seen = {pair for pair, is_known in zip(named, known, strict=True) if is_known}
        repeated = []
        for each in posted:
            repeated.append(
                each.id is not None and ((each.user_id, each.id) in seen or self._unseen.has(each.user_id, each.id))
            )
            if each.id is not None:
                seen.add((each.user_id, each.id))
        return repeated

    def _mark(self, place: Appended) -> Mark:
        assert self._id is not None
        return Mark(self._id, place.file, self._pending.told(place.file), self._pending.applied_after(place))

    def _fail(self, place: Appended) -> None:
        self._pending.fail(place)
        self._behind.set()

    def _now_ms(self) -> int:
        return max(int(time.time() * 1000), self._last_ms + 1)

    def _run_in_background(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        assert self.journal is not None
        while True:
            try:
                if not self._behind.is_set() and not await self._is_followed(self.journal):
                    self._behind.set()
                with self.journal.lock() as is_mine:
                    if is_mine and self._behind.is_set():
                        await self._catch_up(self.journal)
                if is_mine:
                    self._tried.set()
            except Exception as error:
                self._behind.set()
                self._tried.set()
                if not isinstance(error, StoreDownError):
                    logger.exception("the journal could not be applied to the state")
            if self._behind.is_set():
                await asyncio.sleep(RETRY_S if self._tried.is_set() else WAIT_S)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_S):
                        await self._behind.wait()

    async def _is_followed(self, journal: Journal) -> bool:
        """Whether the store still has what it said that it had."""
        marks, is_whole = await self.store.marks(journal.id)
        return is_whole and self._pending.is_kept_by(marks)

    async def _catch_up(self, journal: Journal) -> None:
        """Apply what the store lacks. Raises StoreDownError, having applied a part."""
        marks, _ = await self.store.marks(journal.id)
        ends = self._pending.ends()
        applied = {
            journal.name(path): await self._apply(journal, path, marks)
            for path in journal.files(int(time.time() * 1000) - self.ttl_ms)
        }
        if not await self.store.mark_whole(journal.id, applied):
            return  # it came back empty, or older, meanwhile
        if self._pending.settle(ends):
            self._unseen.clear()
            self._behind.clear()

    async def _apply(self, journal: Journal, path: Path, marks: dict[str, int]) -> int:
        """Apply the lines of a file that the store lacks; up to where it has them then."""
        name, begin = journal.name(path), marks.get(journal.name(path), 0)
        for part, end in lines(path, begin):
            mark, oldest_ms = Mark(journal.id, name, begin, end), int(time.time() * 1000) - self.ttl_ms
            if name.endswith(FORGOTTEN):
                for user_id, time_ms in filter(None, map(forgotten_of, part)):
                    await self.store.forget(user_id, time_ms)
            events = [each for each in map(event_of, part) if each is not None and each[1].received_ms > oldest_ms]
            await self.store.add(events, mark)  # none of a file of the forgotten, whose mark moves when all of them are
            begin = end
            await asyncio.sleep(0)
        return begin


def _live(each: Event, now_ms: int) -> LiveEvent:
    if each.event in RESERVED:
        raise InputError(f"event is {each.event!r}, a kind that only the server writes: send what the user did, such as click")
    time_ms = now_ms if each.time_ms is None else each.time_ms
    return LiveEvent(each.id or event_id(), each.item_id, each.event, time_ms, each.request_id, now_ms)
