"""What is sold, where and until when: a file beside the bundle that is read again when it changes.

Columns: `item_id`, and any of `in_stock` (true or false), `available_from` and `expires` (milliseconds since 1970 or ISO text,
in UTC where it names no zone), `regions` (a list, or text separated by |). An empty cell limits nothing, and an item that the
file does not name is sold everywhere.
"""

import logging
import threading
import time
import weakref
from pathlib import Path

from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.catalogue.file import Listing, read_catalogue
from serving.catalogue.shelf import Shelf

logger = logging.getLogger("recsys.serving")
Signature = tuple[int, int, int] | None


class Catalogue:
    """Asked from one thread. A changed file is read by another one; until then, and where it is broken, the old one stays."""

    def __init__(self, path: Path | None, *, check_s: float = 1.0) -> None:
        """Raises InputError where the file cannot be used. `path` None: all is sold. `check_s`: how often it is looked at."""
        self.path, self.check_s = path, check_s
        self._signature = self._seen = _signature(path)
        self._listing = None if path is None else read_catalogue(path)
        self._shelves: dict[str, tuple[weakref.ref[Bundle], Shelf]] = {}
        self._lock = threading.Lock()  # of `_shelves` and `_listing`, which belong together
        self._looked_s, self._reader = time.monotonic(), threading.Thread()

    def shelf(self, bundle: Bundle) -> Shelf:
        """What the file says about a bundle's items: made once for each bundle, in milliseconds."""
        if self.path is not None:
            self._look()
        if (known := self._shelves.get(bundle.version)) is not None:
            return known[1]
        with self._lock:
            self._shelves = {version: each for version, each in self._shelves.items() if each[0]() is not None}
            self._shelves[bundle.version] = weakref.ref(bundle), (shelf := Shelf(bundle, self._listing))
        return shelf

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < self.check_s or self._reader.is_alive():
            return
        self._looked_s, signature = now_s, _signature(self.path)
        settled, self._seen = signature == self._seen or self._rests(signature), signature
        if signature != self._signature and settled:  # a file that still changes is being written
            self._signature = signature
            self._reader = threading.Thread(target=self._read, name="catalogue", daemon=True)
            self._reader.start()

    def _rests(self, signature: Signature) -> bool:
        """Whether nobody wrote to the file lately."""
        return signature is None or time.time() - signature[0] / 1e9 > self.check_s

    def _read(self) -> None:
        assert self.path is not None
        try:
            listing: Listing = read_catalogue(self.path)
        except InputError as error:
            logger.warning("%s; what it said before stays in force", error)
            return
        bundles = [bundle for reference, _ in list(self._shelves.values()) if (bundle := reference()) is not None]
        shelves = {bundle.version: (weakref.ref(bundle), Shelf(bundle, listing)) for bundle in bundles}
        with self._lock:
            self._listing, self._shelves = listing, shelves
        logger.info("catalogue %s: %d items", self.path, len(listing.item_id))


def _signature(path: Path | None) -> Signature:
    """What changes with the file; None where there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if found else None


EVERYTHING = Catalogue(None)
