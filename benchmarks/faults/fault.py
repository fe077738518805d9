"""What all faults have in common: they strike a running process, and are mended before it is started again."""

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

from benchmarks.faults.warm import Process


class Fault:
    """By default nothing happens. One object strikes once; `mend` takes the cause away, as an operator would."""

    name = "none"
    note = ""  # what it struck, where that is chosen by chance

    def prepare(self, raw: Path, root: Path, day: str) -> None:
        """Before the process starts: where the raw log and the workspace of all days lie."""

    def environment(self) -> dict[str, str]:
        """What the process finds in its environment on top."""
        return {}

    def strike(self, process: Process, rng: random.Random) -> None:
        """The step is running."""

    def mend(self) -> None:
        """After the process has ended."""


class Kill(Fault):
    """SIGKILL to the process and what it started: an out-of-memory killer, a node that is gone."""

    name = "kill -9"

    def strike(self, process: Process, rng: random.Random) -> None:
        end(process)


def end(process: Process) -> None:
    """Kill a process that was started with `start_new_session`, and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
