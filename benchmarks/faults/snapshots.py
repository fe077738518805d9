"""The world as it was just before each step: copies of the raw log, the days and the store, which a cell begins from."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.world import World

PARTS = (
    "raw",
    "days-of-faults",
    "store",
    "mlruns",
)  # the last: the spool of a store that is a server; folders below a world's home


@dataclass(frozen=True)
class Snapshots:
    """`kept` is on another disk than the world. No process may have the store open while one is taken or put back."""

    world: World
    kept: Path

    def take(self, name: str) -> None:
        folder = self.kept / name
        folder.mkdir(parents=True)
        for part in PARTS:
            _copy(self.world.home / part, folder / part)

    def put_back(self, name: str) -> None:
        """The world as it was, and nothing beside."""
        for part in (*PARTS, "tmp", "live"):
            shutil.rmtree(self.world.home / part, ignore_errors=True)
        for part in PARTS:
            _copy(self.kept / name / part, self.world.home / part)
        (self.world.home / "tmp").mkdir()


def _copy(source: Path, target: Path) -> None:
    """With times, by which raw files are known, and with hard links, which days share their datasets by."""
    if source.exists():
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)
