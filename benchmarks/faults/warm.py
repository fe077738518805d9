"""Runs of `recsys` that begin where all is imported: a process that has done that forks one for each, which saves seconds.

A run has its own process group, memory, environment and working directory, as one that was started anew, and does the same.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

USED = (  # by a day, beside what these import
    "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store",
    "matplotlib.pyplot", "onnx", "onnxruntime", "onnxscript", "torch.onnx", "torch.distributed", "pipelines.stages",
    "pipelines.daily.run", "pipelines.daily.champion", "pipelines.daily.report", "pipelines.monitor.arrival",
    "pipelines.monitor.alarms", "pipelines.policy", "pipelines.train", "pipelines.export", "pipelines.evaluate",
    "pipelines.data_report", "pipelines.tracking", "pipelines.progress", "torch._dynamo", "torch.onnx._internal.exporter._core",
    "recsys.track.registry", "benchmarks.faults.same", "sqlalchemy.dialects.sqlite", "serving.client",
)  # fmt: skip
LOOK = "look"


class Process(Protocol):
    """What a fault strikes: a Popen, or a run that was forked."""

    pid: int
    returncode: int | Any

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Forked:
    """A child of the warm process; `status` is read from its pipe."""

    def __init__(self, pid: int, answers: Any) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._answers = answers

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises TimeoutExpired where it has not ended by then."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("recsys", timeout or 0)
            self.returncode = int(self._answers.readline())
        return self.returncode


class Warm:
    """`with warm()` makes it. One run at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def start(self, arguments: list[str], *, cwd: Path, environment: dict[str, str], said: Path) -> Forked:
        """`recsys ARGUMENTS`, or `look` of `same.py`, with these variables on top; what it prints goes to the file."""
        assert self._process.stdin
        assert self._process.stdout
        order = {"arguments": arguments, "cwd": str(cwd), "environment": environment, "said": str(said)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()), self._process.stdout)


@contextmanager
def warm(environment: dict[str, str]) -> Iterator[Warm]:
    """The process that runs are forked from. `environment`: what counts from the first import on, as numbers of threads do."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults.warm"], env={**os.environ, **environment}, bufsize=0,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Warm(process)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait()


def _serve() -> None:
    import importlib

    for name in USED:
        importlib.import_module(name)
    out = os.dup(1)
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            os.close(out)
            _become(json.loads(line))
        os.write(out, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(out, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(order: dict[str, Any]) -> None:
    """Be the run, to its end."""
    status = 1
    try:
        os.setsid()
        os.chdir(order["cwd"])
        os.environ.update(order["environment"])
        tempfile.tempdir = None
        said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, file in ((0, nothing), (1, said), (2, said)):
            os.dup2(file, number)
        _run(order["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(arguments: list[str]) -> None:
    if arguments[0] == LOOK:
        from benchmarks.faults.same import look

        look(*arguments[1:])
    else:
        from pipelines.cli import main

        sys.argv = ["recsys", *arguments]
        main()


if __name__ == "__main__":
    _run(sys.argv[1:]) if sys.argv[1:] else _serve()
