"""The journal of a server: what was shown and what was done, as lines of JSON that `recsys prepare` reads."""

import fcntl
import logging
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import InputError
from serving.answers import Recommendations
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked
from serving.cascade.score import Scored
from serving.journal.predictions import prediction_line
from serving.journal.records import event_line, forgotten_line, impression_lines, request_line
from serving.journal.writer import NEWLINE, Writer, repair
from serving.schema import Asker
from serving.state.store import LiveEvent

EVENTS, REQUESTS, PREDICTIONS, ID_FILE, LOCK_FILE = "events", "requests", "predictions", "id", ".lock"
SHOWN, POSTED, FORGOTTEN = ".shown.ndjson", ".posted.ndjson", ".forgotten.ndjson"
COMPLAIN_S = 60  # how often the log says that impressions cannot be written
READ_BYTES = 1 << 16  # a millisecond's work

logger = logging.getLogger("recsys.serving")


class JournalDownError(Exception):
    """Events cannot be written, so that none can be acknowledged: the disk is full, or gone."""


@dataclass(frozen=True)
class Appended:
    """Where lines stand that were written: the file, below the folder of the journal, and its bytes."""

    file: str
    begin: int
    end: int


class Journal:
    """Appends are whole lines, or nothing."""

    def __init__(self, folder: Path, *, fsync: bool = False, logged_requests: float = 0.0) -> None:
        """Repairs what killed processes left behind. Raises InputError for a folder that cannot be written."""
        self.folder, self.fsync, self.logged_requests = folder, fsync, logged_requests
        self.lost = 0  # lists of which the impressions could not be written
        self._shown, self._posted, self._forgotten = (
            Writer(folder, f"{EVENTS}/day={{day}}/{{process}}{suffix}") for suffix in (SHOWN, POSTED, FORGOTTEN)
        )
        self._requests = Writer(folder, f"{REQUESTS}/{{day}}-{{process}}.ndjson")
        self._predictions = Writer(folder, f"{PREDICTIONS}/{{day}}-{{process}}.ndjson")
        self._complained = 0.0
        try:
            self.id = _id(folder)
            for path in folder.glob("**/*.ndjson"):
                if repair(path):
                    logger.warning("%s ended in half a line, which was cut off", path)
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error}): make it writable, or set `journal` to false") from error

    def events(self, events: Sequence[tuple[str, LiveEvent]], now_ms: int) -> Appended:
        """Once `durable` returned the events outlive this process. Raises JournalDownError, and then none is there."""
        return self._append(self._posted, b"".join(event_line(user, each) for user, each in events), now_ms)

    def forgotten(self, user_id: str, now_ms: int) -> Appended:
        """Remember that a user is to be forgotten, for a store that is made anew. Raises JournalDownError."""
        return self._append(self._forgotten, forgotten_line(user_id, now_ms), now_ms)

    async def durable(self) -> None:
        """Return once what was posted also outlives a power cut, where that was asked for. Raises JournalDownError."""
        try:
            for writer in (self._posted, self._forgotten) if self.fsync else ():
                await writer.flush()
        except OSError as error:
            raise _down(error) from error

    def served(self, asker: Asker, bundle: Bundle, asked: Asked, scored: Scored | None, answer: Recommendations) -> None:
        """A list that was shown: a line for each item, and of a share of the requests all that the graphs read.

        A list for a bare `history` has no impressions: no later event could name its user. Where the disk is full the list goes
        out all the same, and `lost` counts it.
        """
        now_ms = int(time.time() * 1000)
        try:
            if asker.user_id is not None and answer.items:
                self._shown.append(impression_lines(asker.user_id, asked.now_ms, answer), now_ms)
                spec = bundle.facts.serving.error_memory
                if spec is not None and scored is not None:
                    self._predicted(prediction_line(asker.user_id, bundle, asked, scored, answer, spec, now_ms), now_ms)
            if scored is not None and random.random() < self.logged_requests:
                self._requests.append(request_line(asker, bundle, asked, scored, answer), now_ms)
        except OSError as error:
            self.lost += 1
            if time.monotonic() > self._complained + COMPLAIN_S:
                self._complained = time.monotonic()
                logger.error("the journal cannot be written (%s): %d lists are not in it", error, self.lost)

    def predictions(self) -> list[Path]:
        """What was said of lists, the oldest day first."""
        return sorted(self.folder.glob(f"{PREDICTIONS}/*.ndjson"))

    def _predicted(self, line: bytes, now_ms: int) -> None:
        if line:
            self._predictions.append(line, now_ms)

    def files(self, since_ms: int) -> list[Path]:
        """What was posted since about then, and all that tells whom to forget."""
        first = time.strftime("day=%Y-%m-%d", time.gmtime(max(since_ms, 0) / 1000))
        posted = (path for path in self.folder.glob(f"{EVENTS}/day=*/*{POSTED}") if path.parent.name >= first)
        return [*sorted(self.folder.glob(f"{EVENTS}/day=*/*{FORGOTTEN}")), *sorted(posted)]

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def close(self) -> None:
        for writer in (self._shown, self._posted, self._forgotten, self._requests, self._predictions):
            with suppress(OSError):
                writer.close()

    def lock(self) -> AbstractContextManager[bool]:
        """Whether this process alone, of those of the host, may apply the journal to a store now."""
        return _alone(self.folder / LOCK_FILE)

    def _append(self, writer: Writer, lines: bytes, now_ms: int) -> Appended:
        try:
            path, begin = writer.append(lines, now_ms)
        except OSError as error:
            raise _down(error) from error
        return Appended(self.name(path), begin, begin + len(lines))


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _down(error: OSError) -> JournalDownError:
    return JournalDownError(f"the journal cannot be written ({error.strerror}): free space, then send it again")


def lines(path: Path, begin: int, end: int | None = None) -> Iterator[tuple[list[bytes], int]]:
    """The whole lines of a file from an offset on, some at a time, each time with the offset after them. `end` ends it."""
    with path.open("rb") as file:
        rest = b""
        file.seek(begin)
        while part := file.read(READ_BYTES if end is None else max(0, min(READ_BYTES, end - file.tell()))):
            whole, newline, rest = (rest + part).rpartition(NEWLINE)
            if newline:
                begin += len(whole) + 1
                yield whole.split(NEWLINE), begin


def _id(folder: Path) -> str:
    """What tells this journal from those of other hosts that share a store."""
    folder.mkdir(parents=True, exist_ok=True)
    path, scratch = folder / ID_FILE, folder / f".{ID_FILE}-{uuid.uuid4().hex}"
    if not path.exists():
        scratch.write_text(uuid.uuid4().hex)
        with suppress(FileExistsError):
            path.hardlink_to(scratch)  # the first process names it, and never half
        scratch.unlink()
    return path.read_text()
