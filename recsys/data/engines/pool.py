"""The contract of every engine, and how a task's error comes back from another process.

A task is a small frozen dataclass of paths and specs, its function a top-level one, so that both can be pickled; so can the
result, which is small too. Tasks are idempotent (they write under a temporary name and rename), because a task whose worker was
killed runs again.
"""

import pickle
import traceback
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from recsys.errors import InputError
from recsys.spec import Spec

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, int, int], None]  # name of the map, tasks done, tasks in all
MAX_SHOWN = 200  # characters of a task in an error


class Pool(Protocol):
    """Workers that are up."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, name: str, progress: Progress | None = None) -> list[R]:
        """`function` of every task, in the order of `tasks`. The first error ends the map and stops its other tasks."""


class EngineSpec(Spec):
    """Settings of an engine."""

    @abstractmethod
    def open(self) -> AbstractContextManager[Pool]:
        """Start the workers once for several maps; leaving the context ends them all."""

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, name: str, progress: Progress | None = None) -> list[R]:
        """One map with workers of its own."""
        with self.open() as pool:
            return pool.map(function, tasks, name=name, progress=progress)


@dataclass(frozen=True)
class Failure:
    """What a worker sends instead of a result."""

    error: Exception


def attempt(function: Callable[[T], R], task: T) -> R | Failure:
    """The worker's side: an error other than InputError carries the worker's traceback as a note."""
    try:
        return function(task)
    except Exception as error:
        if not isinstance(error, InputError):
            error.add_note(f"In the worker:\n{traceback.format_exc().rstrip()}")
        return Failure(error if _can_travel(error) else _substitute(error))


def unwrap(outcome: R | Failure) -> R:
    """The caller's side: the result, or the task's error raised."""
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome


def killed(name: str, index: int, tasks: Sequence[T], attempts: int) -> InputError:
    """The error about a task that no worker survives."""
    task = repr(tasks[index])
    shown = task if len(task) <= MAX_SHOWN else f"{task[:MAX_SHOWN]}..."
    return InputError(
        f"{name}: every worker on task {index + 1} of {len(tasks)} was killed ({attempts} attempts), most often for want of "
        f"memory: take fewer --workers or more memory. The task is {shown}"
    )


def _can_travel(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # whatever a foreign class raises when it is made anew from other arguments
        return False


def _substitute(error: Exception) -> Exception:
    kind = InputError if isinstance(error, InputError) else RuntimeError
    substitute = kind(str(error) if kind is InputError else f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", []):
        substitute.add_note(note)
    return substitute
