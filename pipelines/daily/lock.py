"""One run of a workspace at a time. The lock is the system's: it goes with the process that holds it, however that ends."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from recsys.errors import InputError

BUSY = 75  # EX_TEMPFAIL of sysexits.h: try again later


class BusyError(InputError):
    """Another process runs in this workspace."""


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file, which says who does. Raises BusyError at once where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{path} is held by {_holder(path)}: wait until it is done") from None
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


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_text())
        return f"{found['what']}, process {found['process']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError):  # it is just being written
        return "another run"
