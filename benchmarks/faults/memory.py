"""No memory: from one moment on the process gets hardly any more address space."""

import os
import random
import resource
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.fault import Fault
from benchmarks.faults.warm import Process


class NoMemory(Fault):
    """RLIMIT_AS at what the process has now and less than `spare_bytes` more (seeded): malloc, mmap and new threads fail."""

    name = "no memory"

    def __init__(self, spare_bytes: int = 4 << 20) -> None:
        self.spare_bytes = spare_bytes

    def strike(self, process: Process, rng: random.Random) -> None:
        with suppress(ProcessLookupError, FileNotFoundError):
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
            limit = pages * os.sysconf("SC_PAGE_SIZE") + rng.randrange(self.spare_bytes)
            resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
