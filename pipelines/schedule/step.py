"""One step of a day as a child process, whose end says whether another try can help."""

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pipelines.daily.lock import BUSY
from pipelines.schedule.target import Target

REFUSED = 2  # what `recsys` ends with when its input is at fault
SHOWN_LINES = 20
STOP_S = 30.0  # how long a step that is to stop may take to end


@dataclass(frozen=True)
class Ended:
    """How a step ended; `tail` is the end of what it wrote to its standard error."""

    status: int
    tail: str

    @property
    def sentence(self) -> str:
        if self.status < 0:
            return f"killed by signal {-self.status}"
        if self.status == BUSY:
            return "another run of a day holds the workspace"
        lines = self.tail.strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"ended with exit status {self.status}"


def run_step(target: Target, step: str | None, day: str, *, say: Callable[[str], object] = sys.stderr.write) -> Ended:
    """Run the step, None for all that is left, and pass on what it says. An interrupt stops the child before it goes on."""
    child = subprocess.Popen(
        target.command(day, step), cwd=target.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    tail: deque[str] = deque(maxlen=SHOWN_LINES)
    reader = threading.Thread(target=_pass_on, args=(child, tail, say), daemon=True)
    reader.start()
    try:
        status = child.wait()
    except BaseException:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)
        child.kill()
        child.wait()
        raise
    reader.join(1)  # a grandchild may hold the pipe open for longer
    return Ended(status, "".join(tail))


def _pass_on(child: "subprocess.Popen[str]", tail: "deque[str]", say: Callable[[str], object]) -> None:
    assert child.stderr is not None
    for line in child.stderr:
        tail.append(line)
        say(line)
