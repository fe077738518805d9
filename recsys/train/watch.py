"""Where the time of a step goes, how much memory it took, and a trace for those who want to look closer."""

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

WARM_UP, TRACED = 5, 5  # steps before the trace begins, and in it
log = logging.getLogger(__name__)


class Stopwatch:
    """Seconds of every part of a step, summed until `read`.

    On a GPU work is only queued, so a lap is exact where `exact` waits for the device, which costs speed; else the laps tell
    when work was queued, and the last of a step, which reads the loss, holds what had to be waited for.
    """

    def __init__(self, device: torch.device, *, exact: bool = False):
        self.device, self.exact = device, exact
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        if self.exact and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading."""
        seconds, self.seconds = self.seconds, {}
        return seconds


def peak_memory_gib(device: torch.device) -> float:
    """Of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextmanager
def trace(path: Path | None) -> Iterator[torch.profiler.profile | None]:
    """Profile a few steps after the first ones and write a trace for chrome://tracing or Perfetto; `step()` it after each."""
    if path is None:
        yield None
        return
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    schedule = torch.profiler.schedule(wait=0, warmup=WARM_UP, active=TRACED, repeat=1)

    written = False

    def write(profile: torch.profiler.profile) -> None:
        nonlocal written
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.tmp")
        profile.export_chrome_trace(str(scratch))
        scratch.rename(path)
        written = True

    with torch.profiler.profile(activities=activities, schedule=schedule, on_trace_ready=write) as profile:
        yield profile
    if not written:
        log.warning("no trace in %s: training had fewer than %d steps, raise fit.epochs", path, WARM_UP + 1)
