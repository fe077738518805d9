"""Who trains the trials: this process, or several, each with its share of the cores. All settings come from `Source`."""

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import torch

from pipelines.sweeping.trial import Outcome, Task, train_trial
from recsys.dataset import Dataset

PATIENCE_S = 10  # for a worker to end by itself
Report = tuple[int, float] | Outcome | None  # epoch and value, or what came of it; None: ready for a first one


class Source(Protocol):
    """Gives out trials and takes their results, in one process."""

    def next(self) -> Task | None:
        """None where all are given out; one that is lost may come again."""
        ...

    def stops(self, task: Task, epoch: int, value: float) -> bool: ...
    def tell(self, task: Task, outcome: Outcome) -> None: ...
    def lost(self, task: Task, how: str) -> None: ...


def train_here(source: Source, data: Dataset, device: torch.device) -> None:
    """One trial after another."""
    while (task := source.next()) is not None:
        source.tell(task, train_trial(task, data, device, _Near(source, task)))


@dataclass(frozen=True)
class _Near:
    source: Source
    task: Task

    def stops(self, epoch: int, value: float) -> bool:
        return self.source.stops(self.task, epoch, value)

    def heartbeat(self) -> None: ...


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    ready: bool = False  # it waits for a task


def train_in_processes(source: Source, dataset: Path, *, workers: int, alive: Path) -> None:
    """As many trials at a time as there are workers. One that is killed is replaced, its trial given back to the source.

    Each worker holds a shared lock of the file `alive`. All of them end when this process does, however that ends.
    """
    threads = max(1, torch.get_num_threads() // workers)
    started: list[_Worker] = []
    try:
        while True:
            busy = _give_out(source, started)
            missing = [slot for slot in range(workers) if slot >= len(started)]
            if not busy and started:
                return
            started += [_start(slot, dataset, alive, threads) for slot in missing]
            _listen(source, started)
    finally:
        _stop(started)


def _give_out(source: Source, started: Sequence[_Worker]) -> bool:
    """Whether anybody has something to do, or is about to say that he could."""
    for worker in started:
        if worker.ready and worker.task is None and (task := source.next()) is not None:
            worker.task, worker.ready = task, False
            with suppress(BrokenPipeError):  # killed: `_listen` finds out
                worker.pipe.send(task)
    return any(worker.task is not None or not worker.ready for worker in started)


def _listen(source: Source, started: list[_Worker]) -> None:
    """Wait for a worker to say something or to end, and answer."""
    heard = wait([worker.pipe for worker in started])
    for worker in [each for each in started if each.pipe in heard]:
        try:
            said: Report = worker.pipe.recv()
        except (EOFError, OSError):
            started.remove(worker)
            worker.process.join()
            _bury(source, worker)
            continue
        match said:
            case None:
                worker.ready = True
            case Outcome():
                assert worker.task is not None, "an outcome belongs to a task"
                task, worker.task, worker.ready = worker.task, None, True
                source.tell(task, said)
            case (epoch, value):
                assert worker.task is not None, "a value belongs to a task"
                stops = source.stops(worker.task, epoch, value)
                with suppress(BrokenPipeError):
                    worker.pipe.send(stops)


def _bury(source: Source, worker: _Worker) -> None:
    code = worker.process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    if worker.ready:  # nothing is lost
        return
    if worker.task is None:
        raise RuntimeError(f"a worker of the sweep {how} before it had anything to do")
    source.lost(worker.task, how)


def _start(slot: int, dataset: Path, alive: Path, threads: int) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked torch or Polars may stand still
    mine, its = context.Pipe()
    process = context.Process(target=_work, args=(its, slot, dataset, alive, threads), name=f"sweep-{slot}", daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited, so that Ctrl-C does not find a worker importing
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    its.close()
    return _Worker(process, mine)


def _stop(started: Sequence[_Worker]) -> None:
    for worker in started:
        worker.pipe.close()
        worker.process.terminate()
    for worker in started:
        worker.process.join(PATIENCE_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@dataclass(frozen=True)
class _Far:
    pipe: Connection
    parent: int

    def stops(self, epoch: int, value: float) -> bool:
        self.pipe.send((epoch, value))
        return bool(self.pipe.recv())

    def heartbeat(self) -> None:
        if os.getppid() != self.parent:
            raise KeyboardInterrupt


def _obey(pipe: Connection, dataset: Path, alive: Path) -> None:
    from recsys.train.distributed import process_group

    # the other end is closed or reset where the first process has ended
    with alive.open("w") as lock, suppress(EOFError, ConnectionError), process_group() as device:
        fcntl.flock(lock, fcntl.LOCK_SH)
        data, far = Dataset(dataset), _Far(pipe, os.getppid())
        pipe.send(None)
        while True:
            pipe.send(train_trial(pipe.recv(), data, device, far))


def _work(pipe: Connection, slot: int, dataset: Path, alive: Path, threads: int) -> None:
    """The life of a worker. Ctrl-C in the terminal is the first process's to deal with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(slot % torch.cuda.device_count())
    with suppress(KeyboardInterrupt):  # around all: the signal may come while the worker ends since its pipe was closed
        _obey(pipe, dataset, alive)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left that could be interrupted


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
