"""Negatives by how often training has them.

Shapes: N = predictions, S = negatives, I = rows of the item table, X = any items.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from recsys.sample.negatives import Sampler
from recsys.sample.popularity import Popularity
from recsys.spec import Spec


class PopularityNegatives(Spec):
    """Drawn with replacement from the distribution of `Popularity`, (count + smoothing) ** exponent."""

    kind: Literal["popularity"] = "popularity"
    count: int = Field(1024, ge=1, description="negatives shared by the batch")
    exponent: float = Field(0.75, ge=0, le=2, description="0: uniform, 1: as training has them")
    smoothing: float = Field(1.0, ge=0, description="added to every real item's count")

    @property
    def drawn(self) -> int | None:
        """How many negatives a batch shares; None: the data decide."""
        return self.count

    def build(self, train_count_I: Tensor) -> Sampler:
        """Make the tables once: a draw is then a binary search in them."""
        table = Popularity(exponent=self.exponent, smoothing=self.smoothing)(train_count_I.cpu().numpy())
        probability_I = torch.from_numpy(table.probability_I).to(train_count_I.device)
        sum_I = probability_I.cumsum(0)  # float64: in float32 the rare ones of a million items would round away
        return Sampler((_Popularity(self.count, probability_I, sum_I / sum_I[-1]),))


@dataclass(frozen=True, eq=False)
class _Popularity:
    count: int
    probability_I: Tensor
    cumulative_I: Tensor  # ends at 1 exactly, which a draw never reaches

    def draw(self, target_N: Tensor, generator: Generator) -> Tensor:
        """Not torch.multinomial: it goes over all rows at every call and takes no more than 2 ** 24 of them."""
        at_S = torch.rand(self.count, dtype=torch.float64, generator=generator, device=generator.device)
        return torch.searchsorted(self.cumulative_I, at_S.to(self.cumulative_I.device), right=True).to(target_N.device)

    def expected(self, item_X: Tensor, target_N: Tensor) -> Tensor:
        return self.count * self.probability_I[item_X.to(self.probability_I.device)].to(target_N.device)
