"""What views of histories are made from, what a view is, and how places are drawn in rows of different lengths.

Shapes: B = histories, N = events of all of them, I = rows of the item table, D = width.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Generator, Tensor

from recsys.batch import Ids
from recsys.spec import Spec


class Histories(NamedTuple):
    """`events` may be read, oldest first. What follows them, `next_B`, is to be predicted: no view may bring it in."""

    events: Ids
    next_B: Tensor
    similar_I: Tensor | None = None  # the item that goes with each one best, for views that read it; itself where none does


class View(NamedTuple):
    """`change` is made to the vectors of the events when they are read, the same at every call."""

    events: Ids
    first_B: Tensor  # how many of the oldest events of each history were left out
    change: Callable[[Tensor], Tensor] | None = None


class HistoryViewSpec(Spec):
    """A subclass adds `kind`, `__call__` and the settings at which nothing changes. Equal generators give equal views."""

    reads_similar: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, histories: Histories, generator: Generator) -> View:
        """A history that has events keeps at least one. The generator is on the CPU."""

    @classmethod
    @abstractmethod
    def neutral(cls) -> Self: ...


def unchanged(histories: Histories, value_N: Tensor | None = None) -> View:
    """The whole histories, with `value_N` in place of their items where that is given."""
    events = histories.events
    value_N = events.value_N if value_N is None else value_N
    return View(Ids(value_N, events.length_B), torch.zeros_like(events.length_B))


def part_of(length_B: Tensor, share: float) -> Tensor:
    """`share` of each length, rounded down; 0.29 of 100 is 29."""
    return (length_B.double() * share + 1e-9).long()


def starts(length_B: Tensor) -> Tensor:
    """Where each row begins in what is joined of all."""
    return length_B.cumsum(0) - length_B


def rows(length_B: Tensor) -> Tensor:
    """row_N, the row each event belongs to."""
    return torch.repeat_interleave(torch.arange(len(length_B), device=length_B.device), length_B)


def ranges(start_B: Tensor, length_B: Tensor) -> Tensor:
    """[start, start + length) of every row, joined."""
    shift_B = start_B - starts(length_B)
    return torch.arange(int(length_B.sum()), device=length_B.device) + torch.repeat_interleave(shift_B, length_B)


def uniform(like: Tensor, generator: Generator) -> Tensor:
    """A float64 number in [0, 1) for each element."""
    return torch.rand(like.shape, dtype=torch.float64, generator=generator).to(like.device)


def some_of_each(length_B: Tensor, count_B: Tensor, generator: Generator) -> Tensor:
    """chosen_N: `count_B` events of each row, drawn at random."""
    row_N = rows(length_B)
    order_N = (row_N + uniform(row_N, generator)).argsort(stable=True)  # each row's own events in random order
    column_N = torch.arange(len(row_N), device=row_N.device) - starts(length_B)[row_N]
    chosen_N = torch.empty_like(row_N, dtype=torch.bool)
    chosen_N[order_N] = column_N < count_B[row_N]
    return chosen_N
