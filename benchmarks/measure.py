"""Run a function in a fresh process and measure it from outside; print the results as a table and as one line of JSON.

The calling process stays small (no Polars in it): Linux counts what a process had in memory before it became another program
towards that program's peak.
"""

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

WATCH_SECONDS = 0.1
OUT = Path(__file__).parent / "out"
DATA = OUT / "data"  # where logs and datasets go unless told otherwise
THREADS = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS")


@dataclass(frozen=True)
class Measured:
    """Seconds leave out the start of Python but count the imports of the function. Peak: resident."""

    seconds: float
    cpu_seconds: float
    peak_mib: int
    result: Any = None

    def numbers(self) -> dict[str, float]:
        return {"seconds": round(self.seconds, 2), "cpu_seconds": round(self.cpu_seconds, 1), "peak_mib": self.peak_mib}


def call(module: str, function: str, threads: int, **arguments: Any) -> Measured:
    """Call a top-level function in a child process. Arguments and result must fit into JSON; paths become text.

    The peak is the system's own for one process; where that has workers, it is that of their sum, looked at ten times a second.
    """
    command = [sys.executable, "-m", "benchmarks.measure", module, function, json.dumps(arguments, default=str)]
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[1])
    peaks = [0]
    threading.Thread(target=_watch, args=(process.pid, peaks), daemon=True).start()
    assert process.stdout is not None
    printed = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{module}.{function} ended with status {process.returncode}: its own message stands above")
    answer = json.loads(printed[-1])
    return Measured(answer["seconds"], usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss // 1024, *peaks), answer["result"])


def _watch(pid: int, peaks: list[int]) -> None:
    """Append the resident MiB of a process and its workers until it ends."""
    with suppress(psutil.Error):
        child = psutil.Process(pid)
        while True:
            family = child.children(recursive=True)
            if family:
                peaks.append(sum(_resident(process) for process in (child, *family)) >> 20)
            child.status()  # raises when it is gone
            time.sleep(WATCH_SECONDS)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def middle(runs: Sequence[Measured]) -> Measured:
    """Median times and the highest peak of repeated runs, whose results are the same."""
    return Measured(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu_seconds for run in runs),
        max(run.peak_mib for run in runs),
        runs[0].result,
    )


def stop_without(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            sys.exit(
                f"{package} is not installed: pip install 'recsys[bench]' (or `pip install {package}`), then run this again"
            )


def report(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], facts: dict[str, Any]) -> None:
    """A table for people, one line of JSON for machines; the line is also written to benchmarks/out."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(table)
    line = json.dumps({"benchmark": name, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **facts})
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(line + "\n")
    print(line)


def _child(module: str, function: str, arguments: str) -> None:
    start = time.perf_counter()
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(json.dumps({"seconds": time.perf_counter() - start, "result": result}))


if __name__ == "__main__":
    _child(*sys.argv[1:])
