"""An item's vector from its own row and from its content. Shapes: C = items, D = width."""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.item_codes import ITEM
from recsys.spec import Spec


class ItemTower(Spec):
    """The sum of an item's own vector and the mean vector of each of its features' values.

    An item that training never had is its content alone; `id_dropout` trains content for that, after DropoutNet, Volkovs et al.
    2017, https://papers.nips.cc/paper/2017/hash/dbd22ba3bd0df8f385bdac3e9f8be207-Abstract.html. Differs from the paper: no
    network on top, and vectors are dropped per item and step, not per user-item pair. Values of several kinds, such as the
    words of a title, are one feature of many values.
    """

    features: tuple[str, ...] = Field(
        (), description="item features that make up the vector beside the item itself; empty: the item alone"
    )
    id_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of the items that show their content alone in a training step"
    )

    def build(self) -> "ItemVectors":
        return ItemVectors(self)


class ItemVectors(nn.Module):
    def __init__(self, spec: ItemTower):
        super().__init__()
        self.features, self.id_dropout = spec.features, spec.id_dropout

    def forward(self, found: Mapping[str, Tensor], known_C: Tensor) -> Tensor:
        """item_CD of the vectors found."""
        own_CD = found[ITEM]
        if not self.features:
            return own_CD
        if self.training and self.id_dropout:
            known_C = known_C & (torch.rand(len(known_C), device=known_C.device) >= self.id_dropout)
        return own_CD * known_C[:, None] + sum(found[name] for name in self.features)
