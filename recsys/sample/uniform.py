"""Every real item as likely as any other. Shapes: N = predictions, S = negatives, I = rows of the item table, X = any items."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.sample.negatives import Sampler
from recsys.spec import Spec


class Uniform(Spec):
    """Drawn with replacement from the whole catalogue: hard negatives are rare among them, but no item is left out."""

    kind: Literal["uniform"] = "uniform"
    count: int = Field(1024, ge=1, description="negatives shared by the batch")

    @property
    def drawn(self) -> int | None:
        """How many negatives a batch shares; None: the data decide."""
        return self.count

    def build(self, train_count_I: Tensor) -> Sampler:
        return Sampler((_Uniform(self.count, len(train_count_I)),))


@dataclass(frozen=True)
class _Uniform:
    count: int
    num_rows: int

    def draw(self, target_N: Tensor, generator: Generator) -> Tensor:
        item_S = torch.randint(FIRST_ID, self.num_rows, (self.count,), generator=generator, device=generator.device)
        return item_S.to(target_N.device)

    def expected(self, item_X: Tensor, target_N: Tensor) -> Tensor:
        return (item_X >= FIRST_ID).double() * (self.count / (self.num_rows - FIRST_ID))
