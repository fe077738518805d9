"""Which of the others belongs to this one? Shapes: V = pairs."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.contrast.pairs import ContrastSpec, Pairs, products, unit


class InfoNCE(ContrastSpec):
    """Softmax over the cosines of a first vector with all second ones, of which its own is the right one.

    InfoNCE, van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, in the form of Yao et al. 2021,
    https://arxiv.org/abs/2007.12865: one direction, and negatives are second vectors alone. `both_ways` adds the other
    direction, as in CL4SRec, https://arxiv.org/abs/2010.14395, whose negatives are vectors of both sides.
    """

    kind: Literal["info_nce"] = "info_nce"
    temperature: float = Field(0.1, gt=0, description="what cosines are divided by; smaller looks harder at the nearest")
    both_ways: bool = Field(False, description="mean of both directions, instead of from the first to the second alone")

    def __call__(self, pairs: Pairs) -> Tensor:
        logit_VV = products(unit(pairs.first_VD), unit(pairs.second_VD)) / self.temperature
        own_VV = torch.eye(len(logit_VV), dtype=torch.bool, device=logit_VV.device)
        forth_V = _loss(logit_VV.masked_fill((pairs.second_V[:, None] == pairs.second_V) & ~own_VV, -torch.inf))
        if not self.both_ways:
            return forth_V
        back_V = _loss(logit_VV.T.masked_fill((pairs.first_V[:, None] == pairs.first_V) & ~own_VV, -torch.inf))
        return (forth_V + back_V) / 2


def _loss(logit_VV: Tensor) -> Tensor:
    return functional.cross_entropy(logit_VV, torch.arange(len(logit_VV), device=logit_VV.device), reduction="none")
