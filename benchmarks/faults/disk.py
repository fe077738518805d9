"""A full disk: a small file system of its own that is filled up, or, where nothing may be mounted, files that cannot grow."""

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.faults.fault import Fault
from benchmarks.faults.warm import Process


class FullDisk(Fault):
    """ENOSPC for every writer below `disk`, which must be a file system of its own (`small_disk`); less than `spare_bytes` are
    left (seeded)."""

    name = "full disk"

    def __init__(self, disk: Path, spare_bytes: int = 16 << 10) -> None:
        self.disk, self.spare_bytes = disk, spare_bytes
        self._ballast = disk / "ballast"

    def strike(self, process: Process, rng: random.Random) -> None:
        free = os.statvfs(self.disk)
        wanted = max(0, free.f_bavail * free.f_frsize - rng.randrange(self.spare_bytes))
        with self._ballast.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(1, wanted))

    def mend(self) -> None:
        self._ballast.unlink(missing_ok=True)


class NoLargeFiles(Fault):
    """RLIMIT_FSIZE: no file of the process grows beyond a size below `most_bytes` (seeded); writes fail with EFBIG."""

    name = "full disk"

    def __init__(self, most_bytes: int = 64 << 10) -> None:
        self.most_bytes = most_bytes

    def strike(self, process: Process, rng: random.Random) -> None:
        limit = rng.randrange(self.most_bytes)
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path | None]:
    """`folder` as a tmpfs of this size; None where this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        yield None
        return
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
