"""A Ray cluster: one that is running, or a local one for as long as it is needed."""

import logging
import os
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import polars as pl
from pydantic import Field

from recsys.data.engines.pool import EngineSpec, Pool, Progress, R, T, attempt, killed, unwrap
from recsys.errors import InputError

MAX_RETRIES = 3  # of a task whose worker was killed, not of one that raised
OBJECT_STORE_BYTES = 100 * 2**20  # tasks and results are small: data moves through files
MAX_ROOT_LENGTH = 32  # characters that Ray's sockets, whose paths Linux limits to 107 bytes, leave to the folder above
STOP_SECONDS = 30
CONNECT_SECONDS = 10


class Ray(EngineSpec):
    """Tasks on a Ray cluster, which also runs the tasks of a killed worker again.

    Ray, Moritz et al. 2018, https://arxiv.org/abs/1712.05889. Only its tasks are used: no object store, no actors.
    """

    kind: Literal["ray"] = "ray"
    address: str | None = Field(
        None, pattern=r":[0-9]+$", description="HOST:PORT of a running cluster; left out: a local one is started for the run"
    )
    workers: int | None = Field(None, ge=1, description="tasks at a time, one CPU each; left out: as many as there are CPUs")

    @contextmanager
    def open(self) -> Iterator[Pool]:
        ray = _ray()
        if ray.is_initialized():
            yield self._pool(ray)
        elif self.address is not None:
            _connect(ray, self.address)
            try:
                yield self._pool(ray)
            finally:
                ray.shutdown()
        else:
            cores = pl.thread_pool_size()
            workers = self.workers or cores
            with _local_cluster(ray, workers):
                imports = os.pathsep.join(path for path in sys.path if path)  # so that workers find what this process finds
                yield self._pool(ray, threads=max(1, cores // workers), PYTHONPATH=imports)

    def _pool(self, ray: ModuleType, *, threads: int = 1, **environment: str) -> Pool:
        workers = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        return _RayPool(ray, workers, {"POLARS_MAX_THREADS": str(threads), **environment})


class _RayPool:
    def __init__(self, ray: ModuleType, workers: int, environment: dict[str, str]):
        self._ray, self._workers = ray, workers
        self._remote = ray.remote(attempt).options(
            num_cpus=1, max_retries=MAX_RETRIES, retry_exceptions=False, runtime_env={"env_vars": environment},
        )  # fmt: skip

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, name: str, progress: Progress | None = None) -> list[R]:
        ray, results, waiting = self._ray, dict[int, R](), deque(range(len(tasks)))
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self._workers:
                    index = waiting.popleft()
                    running[self._remote.remote(function, tasks[index])] = index
                for reference in ray.wait(list(running), num_returns=1)[0]:
                    index = running.pop(reference)
                    results[index] = unwrap(self._get(reference, name, index, tasks))
                    if progress:
                        progress(name, len(results), len(tasks))
        except BaseException:
            _cancel(ray, list(running))
            raise
        return [results[index] for index in range(len(tasks))]

    def _get(self, reference: Any, name: str, index: int, tasks: Sequence[T]) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            raise killed(name, index, tasks, 1 + MAX_RETRIES) from error


def _ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError(f"engine ray needs Ray, which cannot be imported ({error}): pip install 'recsys[ray]'") from error
    return ray


def _connect(ray: ModuleType, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()  # Ray itself tries for many minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at --address {address} ({error}): `ray status` on its head names it"
        ) from error


@contextmanager
def _local_cluster(ray: ModuleType, workers: int) -> Iterator[None]:
    root = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir=root if len(root) <= MAX_ROOT_LENGTH else "/tmp", ignore_cleanup_errors=True
    ) as folder:
        try:
            ray.init(
                address="local", num_cpus=workers, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False, logging_level=logging.ERROR, _temp_dir=str(Path(folder).resolve()),
                _system_config={"task_oom_retries": MAX_RETRIES},
            )  # fmt: skip
            yield
        finally:
            ray.shutdown(wait_for_processes=True)


def _cancel(ray: ModuleType, references: list[Any]) -> None:
    """Stop the tasks and wait, so that none still writes when the caller cleans up."""
    for reference in references:
        ray.cancel(reference, force=True)
    if references:
        ray.wait(references, num_returns=len(references), timeout=STOP_SECONDS)
