"""One run of a workspace at a time. The lock is the system's: it goes with the process that holds it, however that ends."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from recsys.errors import InputError

BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later
LOOK_S = 0.05  # longer than a look at the lock takes


class BusyError(InputError):
    """Another process runs in this workspace."""


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file, which says who does. Raises BusyError at once where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _taken(file):
            raise BusyError(f"{path} is held by {holder(path) or 'another run'}: wait until it is done")
        file.truncate(0)
        json.dump(
            {
                "what": what, "process": os.getpid(), "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }, file,
        )  # fmt: skip
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _taken(file: IO[str]) -> bool:
    """Whether this process has the lock now. `is_held` may have it for a moment, so that it is tried twice."""
    for wait_s in (LOOK_S, 0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(wait_s)
    return False


def is_held(path: Path) -> bool:
    """Whether a process holds the lock, as far as the file system can tell."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False


def holder(path: Path) -> str | None:
    """Who holds the lock, as its file says; None where nobody does. A killed run leaves its name, so that the lock itself is
    asked on the machine of that run; of another machine's there is only the name."""
    try:
        found = json.loads(path.read_text())
        if found["host"] == socket.gethostname() and not is_held(path):
            return None
        return f"{found['what']}, process {found['process']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is just being written
        return None
