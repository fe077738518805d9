"""Servers to ask: the endpoint by the project's own start, the bare app, and the graphs alone in this process."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import measure
from benchmarks.serve import bare
from recsys.columns import LENGTH, USER_ID
from serving.bundle.bundle import Bundle
from serving.run import free_port, running_service, stop

K = 10


def users_of(bundle: Bundle, count: int = 2_000) -> list[str]:
    """External ids of users with a history, spread over the log."""
    known_U = np.flatnonzero(bundle.users[LENGTH].to_numpy() > 0)
    chosen = known_U[np.linspace(0, len(known_U) - 1, min(count, len(known_U))).astype(int)]
    return [bundle.users[USER_ID][int(user)].as_py() for user in chosen]


def ask(port: int, users: list[str], connections: int, **limits: Any) -> dict[str, Any]:
    """Load from a process of its own, on the same cores. Every answer of the endpoint must have no flag."""
    bodies = [json.dumps({"user_id": user, "k": K}) for user in users]
    found = measure.call(
        "benchmarks.serve.load", "run", 1,
        host="127.0.0.1", port=port, path="/recommend", bodies=bodies, connections=connections, **limits,
    )  # fmt: skip
    return dict(found.result)


def alone(bundle: Bundle, users: list[str], requests: int) -> list[float]:
    """Milliseconds of the two ONNX calls of one request, in this process, nothing else around them."""
    given = bare.inputs(bundle, users)
    took = []
    for number in range(requests):
        one = given[users[number % len(users)]]
        began = time.perf_counter()
        bare.graphs(bundle, one)
        took.append((time.perf_counter() - began) * 1e3)
    return took


@contextmanager
def endpoint(bundle: Path, **settings: Any) -> Iterator[tuple[int, list[psutil.Process]]]:
    """The port, and the worker processes."""
    with running_service(bundle, **settings) as url:
        port = int(url.rsplit(":", 1)[1])
        family = [child for child in psutil.Process().children(recursive=True) if _holds_onnx(child)]
        yield port, family


@contextmanager
def bare_app(bundle: Path, users: list[str], way: str, scratch: Path) -> Iterator[int]:
    port = free_port()
    (scratch / "users").write_text("\n".join(users))
    command = [sys.executable, "-m", "benchmarks.serve.bare", str(bundle), str(scratch / "users"), way, str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2], start_new_session=True)
    try:
        _wait(port, process)
        yield port
    finally:
        stop(process)


def resident_mib(processes: list[psutil.Process]) -> float:
    """Memory that the processes have for themselves: pages of files that they map are not counted."""
    total = 0
    for process in processes:
        with suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total / 2**20


def _holds_onnx(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):
        return "onnxruntime" in Path(f"/proc/{process.pid}/maps").read_text()
    return False


def _wait(port: int, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the bare app did not start on port {port}")
