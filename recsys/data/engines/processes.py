"""Processes of this machine, each with its share of the cores."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Literal

import polars as pl
from pydantic import Field

from recsys.data.engines.pool import EngineSpec, Pool, Progress, R, T, attempt, killed, unwrap

THREADS = "POLARS_MAX_THREADS"  # Polars reads it once, at import
MAX_RETRIES = 2  # of a task whose worker was killed, not of one that raised


class Processes(EngineSpec):
    """A pool of spawned processes (a forked Polars deadlocks). Tasks of a killed worker run again, one at a time."""

    kind: Literal["processes"] = "processes"
    workers: int | None = Field(None, ge=1, description="left out: one for each core")

    @contextmanager
    def open(self) -> Iterator[Pool]:
        cores = pl.thread_pool_size()
        workers = self.workers or cores
        started = _Workers(workers, threads=max(1, cores // workers))
        try:
            yield _ProcessPool(started)
        finally:
            started.stop()


class _Workers:
    """An executor that can be killed and used again.

    Its processes listen to a pipe whose other end only the parent holds, so they end when the parent does, whatever ends it.
    """

    def __init__(self, number: int, threads: int):
        self.number, self.threads = number, threads
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[[T], R], task: T) -> Future[Any]:
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._listen, self._hold = context.Pipe(duplex=False)
            self._executor = ProcessPoolExecutor(
                self.number, mp_context=context, initializer=_begin_worker, initargs=(self._listen,)
            )
        with _environment(THREADS, str(self.threads)):  # the executor may spawn a process here, which inherits it
            return self._executor.submit(attempt, function, task)

    def stop(self) -> None:
        """Let running tasks end."""
        if self._executor is not None:
            self._executor.shutdown(wait=True)
            self.kill()

    def kill(self) -> None:
        if self._executor is not None:
            self._hold.close()
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._listen.close()
            self._executor = None


class _ProcessPool:
    def __init__(self, workers: _Workers):
        self._workers = workers

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, name: str, progress: Progress | None = None) -> list[R]:
        results: dict[int, R] = {}

        def done(index: int, result: R) -> None:
            results[index] = result
            if progress:
                progress(name, len(results), len(tasks))

        waiting = deque(range(len(tasks)))
        while waiting:
            for index in _drain(self._workers, function, tasks, waiting, done):
                if not self._runs_alone(function, tasks, index, done):
                    raise killed(name, index, tasks, 1 + MAX_RETRIES)
        return [results[index] for index in range(len(tasks))]

    def _runs_alone(self, function: Callable[[T], R], tasks: Sequence[T], index: int, done: Callable[[int, R], None]) -> bool:
        """Of several tasks that ran when a worker was killed, one is to blame: alone it shows, and has all the memory."""
        alone = _Workers(1, self._workers.threads)
        try:
            return not all(_drain(alone, function, tasks, deque([index]), done) for _ in range(MAX_RETRIES))
        finally:
            alone.stop()


def _drain(
    workers: _Workers,
    function: Callable[[T], R],
    tasks: Sequence[T],
    waiting: deque[int],
    done: Callable[[int, R], None],
) -> list[int]:
    """Run the waiting tasks. When a worker is killed, end the others and return the tasks that were running."""
    running: dict[Future[Any], int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers.number:
                running[workers.submit(function, tasks[waiting[0]])] = waiting[0]
                waiting.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                done(running.pop(future), unwrap(outcome))
    except BrokenProcessPool:
        workers.kill()
        return list(running.values())
    except BaseException:
        workers.kill()
        raise
    return []


def _begin_worker(listen: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, args=(listen,), daemon=True).start()


def _end_with_parent(listen: Connection) -> None:
    with suppress(EOFError, OSError):
        listen.recv()
    os._exit(1)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
