"""The memories of the versions that a process holds, kept up with the journal.

Like the state, a memory is a view of the journal: it is made again at the start, from the newest lines, and from then on every
process reads what all processes of the host append. So nothing of it has to be saved, and a killed server loses nothing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from serving.bundle.bundle import Bundle
from serving.error_memory.feedback import Feedback
from serving.error_memory.of_bundle import BundleMemory
from serving.journal.journal import FORGOTTEN, Journal, lines
from serving.journal.predictions import prediction_of
from serving.journal.records import event_of, forgotten_of

POLL_S = 1.0
BYTES_OF_ENTRY = 200  # read at the start, for each error that is kept: more than one takes in the journal
POSTED_BYTES = 16 << 20  # read of each file of events at the start, at most
logger = logging.getLogger("recsys.serving")


class Memories:
    def __init__(self, journal: Journal | None, held: Callable[[], Iterable[Bundle]], *, by_requests: bool = False) -> None:
        """`held`: the bundles that may be asked. Without a journal there is nothing to learn from, and no memory.
        `by_requests`: time passes with the moments that requests and events name (`until`), not with the clock."""
        self._journal, self._held, self._by_requests = journal, held, by_requests
        self._of_version: dict[str, BundleMemory] = {}
        self._feedback: Feedback | None = None
        self._offset: dict[Path, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._turning = asyncio.Lock()

    def of(self, bundle: Bundle) -> BundleMemory | None:
        """None where the bundle asks for none. The first question begins the reading of the journal."""
        if bundle.facts.serving.error_memory is None or self._journal is None:
            return None
        if self._task is None and not self._by_requests:
            self._task = asyncio.get_running_loop().create_task(self._run(self._journal))
        return self._of_version.get(bundle.version)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def until(self, time_ms: int | None) -> None:
        """Where time passes with the requests: learn what is known at the moment of this one."""
        if self._by_requests and self._journal is not None and time_ms is not None:
            await self.turn(self._journal, time_ms)

    async def turn(self, journal: Journal, now_ms: int) -> None:
        """Read what was appended, and learn from the lists whose time is over by then."""
        async with self._turning:
            await self._turn(journal, now_ms)

    async def _turn(self, journal: Journal, now_ms: int) -> None:
        self._hold()
        if not self._of_version:
            return
        first = self._feedback is None
        if self._feedback is None:
            self._feedback = Feedback(max(memory.spec.entries for memory in self._of_version.values()))
        feedback = self._feedback
        await self._read_forgotten(journal, feedback)
        end = {path: path.stat().st_size for path in journal.files(0) if not path.name.endswith(FORGOTTEN)}
        await self._read_predictions(journal, feedback, first)
        await self._read_posted(journal, feedback, first, end)
        for version, answered in feedback.settled(now_ms):
            if version in self._of_version:
                self._of_version[version].learn(answered)
            await asyncio.sleep(0)

    def _hold(self) -> None:
        """A memory for each version that is held and wants one; those of others go."""
        found = {}
        for bundle in self._held():
            spec = bundle.facts.serving.error_memory
            if spec is not None and bundle.ranking is not None:
                found[bundle.version] = self._of_version.get(bundle.version) or BundleMemory(bundle, spec)
        self._of_version = found

    async def _read_forgotten(self, journal: Journal, feedback: Feedback) -> None:
        async for line in self._new(path for path in journal.files(0) if path.name.endswith(FORGOTTEN)):
            if found := forgotten_of(line):
                feedback.forget(*found)
                for memory in self._of_version.values():
                    memory.forget(found[0])

    async def _read_predictions(self, journal: Journal, feedback: Feedback, first: bool) -> None:
        """At the start the newest lines, as many as a memory may need."""
        paths = journal.predictions()
        left = max(memory.spec.entries for memory in self._of_version.values()) * BYTES_OF_ENTRY
        for path in reversed(paths) if first else ():
            size = path.stat().st_size
            self._offset[path] = max(size - left, 0)
            left = max(left - size, 0)
        async for line in self._new(paths):
            if (found := prediction_of(line)) and (memory := self._of_version.get(found.version)):
                moment_ms = found.time_ms if self._by_requests else found.served_ms
                feedback.served(found.model_copy(update={"served_ms": moment_ms}), memory.spec)

    async def _read_posted(self, journal: Journal, feedback: Feedback, first: bool, end: Mapping[Path, int]) -> None:
        """Events of the days of the lists that wait. Where those of a list may have been passed over, it is not waited for.

        `end`: the files and their sizes before the lists were read; the list of an event that came later may not be known yet.
        """
        since_ms = feedback.oldest_ms
        paths = [path for path in journal.files(0 if self._by_requests else since_ms or 0) if path in end]
        for path, size in end.items() if first else ():
            self._offset[path] = max(size - POSTED_BYTES, 0) if path in paths and since_ms is not None else size
        cut = {path for path in paths if first and self._offset[path]}
        for path in paths:
            async for line in self._new([path], end[path]):
                if found := event_of(line):
                    user, event = found
                    event = replace(event, received_ms=event.time_ms) if self._by_requests else event
                    feedback.posted(user, event)
                    if path in cut:
                        cut.discard(path)
                        feedback.drop_before(event.received_ms)

    async def _new(self, paths: Iterable[Path], end: int | None = None) -> AsyncIterator[bytes]:
        """The lines appended since the last time, a pause after every piece, as the requests come first."""
        for path in paths:
            for part, read in lines(path, self._offset.get(path, 0), end):
                self._offset[path] = read
                for line in part:
                    yield line
                await asyncio.sleep(0)

    async def _run(self, journal: Journal) -> None:
        while True:
            try:
                await self.turn(journal, int(time.time() * 1000))
            except Exception:
                logger.exception("the error memory could not be brought up to date")
            await asyncio.sleep(POLL_S)
