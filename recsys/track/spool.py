"""The spool: what runs have to tell a store, kept on disk until the store has taken it.

`<beside the store>/spool/<hash of the address>/<time>-<process>/` holds a run's journal, a line of JSON for each thing to tell,
and copies of its artefacts. The address is hashed without its password, which is written nowhere. A process that is killed
leaves its journals, whose lock the system opens, so that a later command sends them.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import IO, Any

from recsys.track.store import beside, shown

JOURNAL, STATE, LOCK_FILE, FILES, IDS = "journal.jsonl", "sent.json", "lock", "files", "ids"
ENDS = ("close", "hand_over")  # the last entry of a run that its process has left in order
LOCAL = "local-"  # how the id of a run begins that the store does not know yet
SMALL_BYTES = 2**20  # larger files are linked; ours are replaced and never written to again
AT_ONCE = 100  # entries that are read ahead
MAX_IN_MEMORY = 20_000  # entries of a run whose disk takes no more

Entry = dict[str, Any]
log = logging.getLogger("recsys.track")
log.setLevel(logging.WARNING)  # also where a library sets the root logger to errors alone
_numbers = count()


def spool_of(uri: str) -> Path:
    """Where journals for this store lie."""
    return beside(uri) / "spool" / hashlib.sha256(shown(uri).encode()).hexdigest()[:12]


class Journal:
    """Everything a run has to tell, in order; `header` says which run it is. Lines of a file; memory where the disk fails."""

    def __init__(self, folder: Path, header: Entry, lock: IO[str] | None, state: Entry | None = None):
        self.folder, self.header = folder, header
        self.state: Entry = {"done": 0, **(state or {})}  # `run_id` once the store knows the run
        self.written = self.state["done"]
        self._writing = threading.Lock()
        self.ended = False  # whether its run was closed
        self._lock = lock
        self._file: IO[bytes] | None = None
        self._unread: IO[bytes] | None = None
        self._unread_place = 0
        self._ahead: list[Entry] = []
        self._in_memory: list[Entry] = []
        self._attached = count()

    @classmethod
    def begin(cls, uri: str, header: Entry, **state: Any) -> "Journal":
        """A new journal of this process. On a disk that cannot be written it is kept in memory, and that is said once."""
        name = f"{time.time_ns()}-{os.getpid()}-{next(_numbers)}"
        journal = cls(spool_of(uri) / name, header, None, state)
        try:
            journal.folder.mkdir(parents=True)
            journal._lock = (journal.folder / LOCK_FILE).open("w")
            fcntl.flock(journal._lock, fcntl.LOCK_EX)
            journal._file = (journal.folder / JOURNAL).open("ab", buffering=0)
            journal._write(header)
            journal._save()
        except OSError as error:
            journal._give_up_disk(error)
        return journal

    @classmethod
    def open(cls, folder: Path) -> "Journal | None":
        """A journal that a process has left; None where one still writes to it, or there is nothing in it."""
        try:
            lock = (folder / LOCK_FILE).open("r+")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lines = [line for line in (folder / JOURNAL).read_bytes().split(b"\n")[:-1] if line]
            state = json.loads((folder / STATE).read_text())
            journal = cls(folder, json.loads(lines[0]), lock, state)
        except (OSError, ValueError, IndexError):
            return None
        journal.written = len(lines) - 1
        journal.ended = len(lines) > 1 and json.loads(lines[-1])["op"] in ENDS
        return journal

    @property
    def waiting(self) -> int:
        """How many entries the store has not taken."""
        return int(self.written - self.state["done"])

    def append(self, entry: Entry) -> None:
        with self._writing:
            if self._file is not None:
                try:
                    self._write(entry)
                except OSError as error:
                    self._give_up_disk(error)
            if self._file is None:
                if len(self._in_memory) >= MAX_IN_MEMORY:
                    return
                self._in_memory.append(entry)
            if self.waiting == len(self._ahead) < AT_ONCE:
                self._ahead.append(entry)  # so that it need not be read again
            self.written += 1

    def ahead(self) -> list[Entry]:
        """Some entries that the store has not taken, oldest first. One reader at a time."""
        with self._writing:
            on_disk = self.written - len(self._in_memory)
            while (place := self.state["done"] + len(self._ahead)) < self.written and len(self._ahead) < AT_ONCE:
                self._ahead.append(self._read(place) if place < on_disk else self._in_memory[place - on_disk])
            return list(self._ahead)

    def taken(self, entries: int = 1, **state: Any) -> None:
        """The store has taken the next entries."""
        with self._writing:
            del self._ahead[:entries]
            self.state |= {"done": self.state["done"] + entries, **state}
            self._save()

    def _read(self, place: int) -> Entry:
        if self._unread is None:
            self._unread = (self.folder / JOURNAL).open("rb")
            self._unread.readline()  # the header
        while self._unread_place < place:
            self._unread.readline()
            self._unread_place += 1
        self._unread_place += 1
        entry: Entry = json.loads(self._unread.readline())
        return entry

    def keep(self, path: Path) -> str:
        """Keep a file or folder as it is now; returns where, relative to the journal's folder (without a disk its own path)."""
        target = self._place(path.name)
        if target is None:
            return str(path.absolute())
        try:
            if path.is_dir():
                shutil.copytree(path, target, copy_function=_copy)
            else:
                _copy(str(path), str(target))
        except OSError:
            return str(path.absolute())
        return str(target.relative_to(self.folder))

    def new_file(self, name: str) -> Path:
        """Where to write a file that becomes an artefact."""
        return self._place(name) or Path(tempfile.mkdtemp(prefix="recsys-")) / name

    def forget(self, name: str) -> None:
        """A kept file that the store has now."""
        if not Path(name).is_absolute():
            shutil.rmtree((self.folder / name).parent, ignore_errors=True)

    def close(self) -> None:
        """Remove what is all sent, leave the rest for a later command."""
        for file in (self._file, self._unread):
            if file is not None:
                file.close()
        self._file = self._unread = None
        if not self.waiting and "run_id" in self.state:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    def set_aside(self) -> Path:
        """Keep it where nobody tries to send it again; returns where."""
        kept = self.folder.with_name(f"unreadable.{self.folder.name}")
        with contextlib.suppress(OSError):
            self.folder.rename(kept)
        return kept

    def leave(self) -> None:
        """Let others have it, as it is."""
        if self._lock is not None:
            self._lock.close()

    def _place(self, name: str) -> Path | None:
        if self._file is None:
            return None
        try:
            folder = self.folder / FILES / str(next(self._attached))
            folder.mkdir(parents=True)
        except OSError:
            return None
        return folder / name

    def _write(self, entry: Entry) -> None:
        """All of the line or none of it."""
        assert self._file is not None
        size, line = self._file.tell(), json.dumps(entry, default=str).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError("no space left on the device")
        except OSError:
            self._file.truncate(size)
            raise

    def _save(self) -> None:
        if self._lock is None:
            return
        scratch = self.folder / f".{STATE}"
        try:
            scratch.write_text(json.dumps(self.state))
            scratch.rename(self.folder / STATE)
        except OSError:  # after a kill the last entries would be sent twice, which the store ignores
            pass

    def _give_up_disk(self, error: OSError) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        say_once(
            str(self.folder.parent),
            f"{self.folder.parent} cannot be written ({error.strerror or error}): the work goes on, but what the MLflow store "
            "has not taken when this process ends is lost",
        )


def journals(uri: str) -> list[Path]:
    """The folders of journals, in the order in which they were begun."""
    return sorted(path for path in spool_of(uri).glob("[0-9]*-*-*") if path.is_dir())


def known_id(run_id: str, uri: str) -> str:
    """The store's id of a run that began while the store was away; any other id as it is."""
    if not run_id.startswith(LOCAL):
        return run_id
    try:
        return (spool_of(uri) / IDS / run_id).read_text().strip()
    except OSError:
        return run_id


def remember_id(local: str, run_id: str, uri: str) -> None:
    folder = spool_of(uri) / IDS
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{local}"
    scratch.write_text(run_id + "\n")
    scratch.rename(folder / local)


_said: set[str] = set()


def say_once(about: str, text: str) -> None:
    """One line on the standard error, once in a process for what it is about."""
    if about not in _said:
        _said.add(about)
        log.warning(text)


def _copy(source: str, target: str) -> None:
    if os.path.getsize(source) > SMALL_BYTES:
        try:
            os.link(source, target)
        except OSError:  # another disk
            pass
        else:
            return
    shutil.copyfile(source, target)
