"""What every kind of hard negatives is given and answers.

Shapes: N = predictions, B = sequences, D = width, C = rows of the item table that a batch needs, S = the pool's items, K = the
negatives of a row, I = rows of the item table, F = exposure features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from recsys.sample.hardest import Chosen, hardest, known_columns
from recsys.sample.pair_scores import pair_scores
from recsys.spec import Spec


@dataclass(frozen=True, eq=False)
class Standing:
    """How a batch stands: users and items as scored, with gradients, and the pool in which negatives are sought.

    Items are rows of `item_CD`. The rows of one sequence stand together; its targets are all of its events.
    """

    user_ND: Tensor
    item_CD: Tensor
    item_C: Tensor  # their ids
    place_N: Tensor  # of the targets
    length_B: Tensor
    place_S: Tensor  # of the pool, each once
    log_expected_S: Tensor  # how often the pool is expected to hold them
    log_expected_N: Tensor  # and the targets
    seed: int = 0  # of this step

    @cached_property
    def sequence_N(self) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(self.length_B), device=self.length_B.device), self.length_B)

    @cached_property
    def positive_N(self) -> Tensor:
        """The targets' scores."""
        return (self.user_ND * self.item_CD[self.place_N]).sum(1).float()

    @torch.no_grad()
    def hardest(self, count: int, skip: int = 0, *, guard: bool = True, row_X: Tensor | None = None) -> Chosen:
        """Of the pool, for these rows (None: all). With `guard` no item of a row's own sequence, else only not its target."""
        row_X = torch.arange(len(self.user_ND), device=self.user_ND.device) if row_X is None else row_X
        length = self.length_B if guard else torch.ones_like(self.place_N)
        known = known_columns(self.place_N, length, self.place_S, len(self.item_CD))
        of_X = self.sequence_N[row_X] if guard else row_X
        return hardest(self.user_ND[row_X], self.item_CD[self.place_S], known, of_X, count=count, skip=skip)

    def scores(self, chosen: Chosen) -> Tensor:
        """negative_NK, -inf where a row has no such negative."""
        score_NK = pair_scores(self.user_ND, self.item_CD, self.place_S[chosen.place_NK])
        return score_NK.masked_fill(~chosen.exists_NK, -torch.inf)


@dataclass(frozen=True)
class Against:
    """What the rows are compared with. Logs of expected numbers are one per negative, or one per row and negative."""

    negative_NK: Tensor
    log_expected: Tensor
    weight_NK: Tensor | None = None  # of each pair, detached
    own_N: Tensor | None = None  # what the parameters of the kind itself minimise; no gradient to the model
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Hard(Protocol):
    """What is called in training: a spec or, where the kind has parameters, a module."""

    @property
    def freezes_items(self) -> bool:
        """Whether item vectors are held as they are."""
        ...

    def __call__(self, standing: Standing) -> Against: ...


class HardSpec(Spec):
    """A subclass adds `kind` and `__call__`, or, with parameters, `build` of a module that is called so."""

    needs_pairs: ClassVar[bool] = False  # whether only a loss of pairs can be made of its answer
    whole_vectors: ClassVar[bool] = False  # whether it reads vectors of one width only

    @property
    def freezes_items(self) -> bool:
        return False

    @property
    def reach(self) -> int:
        """How many of a row's best candidates it looks at: a pool of no more leaves no choice."""
        raise NotImplementedError

    def build(self, width: int, exposure_IF: Tensor) -> Hard:
        """What is called in training. `exposure_IF` says how visible each item was."""
        return self

    def __call__(self, standing: Standing) -> Against:
        raise NotImplementedError


def above(standing: Standing, negative_NK: Tensor) -> dict[str, Tensor]:
    """What is logged of every kind: the share of negatives that the model puts above the target."""
    exists_NK = negative_NK.detach().isfinite()
    higher_NK = exists_NK & (negative_NK.detach() > standing.positive_N.detach()[:, None])
    return {"hard_above": higher_NK.sum() / exists_NK.sum().clamp(min=1)}
