"""The engine that needs nothing: threads of this process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Literal

import polars as pl
from pydantic import Field

from recsys.data.engines.pool import EngineSpec, Pool, Progress, R, T

MOST = 4  # by default: Polars spreads each task over all cores already, and every thread holds a task's memory


class Threads(EngineSpec):
    """A few tasks at a time in this process: while one is in a step that uses a single core, another goes on."""

    kind: Literal["threads"] = "threads"
    workers: int | None = Field(None, ge=1, description="left out: one for each core, at most 4")

    @contextmanager
    def open(self) -> Iterator[Pool]:
        yield _ThreadPool(self.workers or min(MOST, pl.thread_pool_size()))


class _ThreadPool:
    def __init__(self, workers: int):
        self._workers = workers

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, name: str, progress: Progress | None = None) -> list[R]:
        with ThreadPoolExecutor(self._workers) as executor:
            futures = [executor.submit(function, task) for task in tasks]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    if progress:
                        progress(name, done, len(tasks))
            except BaseException:  # Ctrl-C too: tasks that run come to their end, no other begins
                executor.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]
