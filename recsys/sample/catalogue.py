"""Every item, once. Shapes: N = predictions, S = negatives, I = rows of the item table, X = any items."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.sample.negatives import Sampler
from recsys.spec import Spec


class Catalogue(Spec):
    """The whole catalogue as the pool of `hard` negatives: each step reads the whole item table.

    Without `hard`, sampled_softmax equals full_softmax, which needs far less memory.
    """

    kind: Literal["catalogue"] = "catalogue"

    @property
    def drawn(self) -> int | None:
        """How many negatives a batch shares; None: the data decide."""
        return None

    def build(self, train_count_I: Tensor) -> Sampler:
        return Sampler((_Catalogue(len(train_count_I)),))


@dataclass(frozen=True)
class _Catalogue:
    num_rows: int

    def draw(self, target_N: Tensor, generator: Generator) -> Tensor:
        return torch.arange(FIRST_ID, self.num_rows, device=target_N.device)

    def expected(self, item_X: Tensor, target_N: Tensor) -> Tensor:
        return (item_X >= FIRST_ID).double()
