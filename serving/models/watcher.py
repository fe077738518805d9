"""A thread that looks at a few files several times a second, and calls when one of them changed."""

import logging
import threading
import time
import weakref
from collections.abc import Hashable
from typing import Protocol

RETRY_S = 60.0  # after a refusal, even where nothing changed: the disk may have been full
logger = logging.getLogger("recsys.serving")


class Watched(Protocol):
    def stamps(self) -> tuple[Hashable, Hashable]:
        """Cheap to ask: what changes with a file that is replaced as a whole, and with folders that fill up bit by bit."""
        ...

    def turn(self) -> bool:
        """Do what the files ask for; whether all of it worked."""
        ...


class Watcher:
    def __init__(self, watched: Watched, poll_s: float, *, is_done: bool = True) -> None:
        """`is_done`: whether what the files ask for was done already; where not, it is tried again like after a refusal."""
        self._stop = threading.Event()
        retry_at = None if is_done else time.monotonic() + RETRY_S
        arguments = (weakref.ref(watched), watched.stamps(), self._stop, poll_s, retry_at)
        self._thread = threading.Thread(target=_watch, args=arguments, name="models", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)


def _watch(
    watched: weakref.ref[Watched], seen: tuple[Hashable, Hashable], stop: threading.Event, poll_s: float, retry_at: float | None
) -> None:
    """Ends with `stop`, or when nobody holds the watched object any more."""
    last = seen
    while not stop.wait(poll_s) and (each := watched()) is not None:
        try:
            now = each.stamps()
            settled = now[1] == last[1]  # a folder that still changes is being written
            due = retry_at is not None and time.monotonic() > retry_at
            if (now != seen and settled) or due:
                seen, retry_at = now, None if each.turn() else time.monotonic() + RETRY_S
            last = now
        except Exception:
            logger.exception("the watcher of the models goes on after an error")
        del each
