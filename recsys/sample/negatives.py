"""Negatives shared by a batch, and how often each item is expected among them: what a sampled loss corrects by.

Shapes: N = predictions, S = negatives, X = any items.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor


class Negatives(NamedTuple):
    """The drawn items, and the log of the expected number of times an item is drawn, -inf for one that never is."""

    item_S: Tensor
    log_expected_S: Tensor  # of the negatives
    log_expected_N: Tensor  # of each row's own target

    def distinct(self) -> "Negatives":
        """Each item once, in ascending order, and the log of how likely it is to be there at all.

        An item expected e times in many draws is there with probability 1 - exp(-e). Draws without a repetition stay as they
        are: either e is small, and the two are the same, or every item is there once by design.
        """
        item_S, which_S = self.item_S.unique(return_inverse=True)
        if len(item_S) == len(self.item_S):
            return self
        log_S = self.log_expected_S.new_empty(len(item_S)).scatter_(0, which_S, self.log_expected_S)  # alike for equal items
        return Negatives(item_S, _log_present(log_S), _log_present(self.log_expected_N))


def _log_present(log_expected_X: Tensor) -> Tensor:
    return (-torch.expm1(-log_expected_X.exp())).log()


class Source(Protocol):
    """One distribution. The expected numbers are float64; both lie on the targets' device."""

    def draw(self, target_N: Tensor, generator: Generator) -> Tensor:
        """item_S, none of them reserved."""
        ...

    def expected(self, item_X: Tensor, target_N: Tensor) -> Tensor:
        """How many of a set's draws are the item, on average."""
        ...


@dataclass(frozen=True)
class Sampler:
    """Draws from each source. An item may come from any of them, so what is expected of it is the sum over all."""

    sources: tuple[Source, ...]

    def __call__(self, target_N: Tensor, generator: Generator) -> Negatives:
        item_S = torch.cat([source.draw(target_N, generator) for source in self.sources])
        return Negatives(item_S, self._log_expected(item_S, target_N), self._log_expected(target_N, target_N))

    def _log_expected(self, item_X: Tensor, target_N: Tensor) -> Tensor:
        return torch.stack([source.expected(item_X, target_N) for source in self.sources]).sum(0).log().float()
