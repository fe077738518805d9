"""A corrupted artefact: bytes of one of its files change where they lie, and its times stay, as a failing disk does it."""

import json
import os
import random
from glob import glob
from pathlib import Path

from benchmarks.faults.fault import Fault, end
from benchmarks.faults.warm import Process
from recsys.artefact import MANIFEST


def flip(path: Path, rng: random.Random, bytes_: int = 16) -> None:
    """Turn over a bit of some bytes in the middle of a file; size and times stay."""
    before = path.stat()
    with path.open("r+b") as file:
        for _ in range(bytes_):
            place = rng.randrange(before.st_size)
            file.seek(place)
            (old,) = file.read(1)
            file.seek(place)
            file.write(bytes([old ^ (1 << rng.randrange(8))]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_in(artefact: Path, rng: random.Random) -> Path:
    """Flip bytes in a file of an artefact, by chance one of those that have a tenth of its largest file's size; which one."""
    names = json.loads((artefact / MANIFEST).read_text())["files"]
    sizes = {name: (artefact / name).stat().st_size for name in names}
    chosen = artefact / rng.choice(sorted(name for name, size in sizes.items() if size * 10 >= max(sizes.values())))
    flip(chosen, rng)
    return chosen


class Damaged(Fault):
    """The process is killed, and bytes of an artefact flip that the day's earlier steps have left.

    `artefacts`: folders of the day, or patterns of others (`../DAY/dataset`), of which one is chosen (seeded); it stays
    damaged. Without one, bytes of the raw partition flip while the process goes on, and the partition is delivered once more.
    """

    name = "corrupted artefact"

    def __init__(self, *artefacts: str) -> None:
        self.artefacts = artefacts
        self.file: Path | None = None
        self._raw, self._day, self._whole = Path(), Path(), b""

    def prepare(self, raw: Path, root: Path, day: str) -> None:
        self._raw, self._day = raw / "events" / f"day={day}", root / "days" / day

    def strike(self, process: Process, rng: random.Random) -> None:
        found = [Path(each) for name in self.artefacts for each in glob(str(self._day / name / MANIFEST))]
        there = [each.parent.resolve() for each in found]
        if there:
            end(process)
            self.file = flip_in(rng.choice(there), rng)
            self.note = os.path.relpath(self.file, self._day.parent)
            return
        self.file = min(self._raw.iterdir())
        self.note = f"raw {self.file.name}"
        self._whole, times = self.file.read_bytes(), self.file.stat()
        self._times = (times.st_atime_ns, times.st_mtime_ns)
        flip(self.file, rng)

    def mend(self) -> None:
        if self._whole and self.file is not None:
            self.file.write_bytes(self._whole)
            os.utime(self.file, ns=self._times)
