"""Correlated feature masking. Shapes: F = features."""

from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from recsys.augment.feature_mask import FeatureMaskSpec


class Correlated(FeatureMaskSpec):
    """A random feature is masked, and with it the half of the features that tell most about it: what is left cannot simply
    repeat what is hidden.

    CFM, Yao et al. 2021, https://arxiv.org/abs/2007.12865. Differs from the paper: with two features one is masked, not both.
    """

    kind: Literal["correlated"] = "correlated"
    reads_mutual: ClassVar[bool] = True

    def __call__(self, mutual_FF: Tensor, generator: Generator) -> Tensor:
        count = len(mutual_FF)
        seed = int(torch.randint(count, (1,), generator=generator))
        known_F = mutual_FF[seed].double().clone()
        known_F[seed] = torch.inf  # a feature tells most about itself
        masked_F = torch.zeros(count, dtype=torch.bool)
        masked_F[known_F.argsort(descending=True, stable=True)[: min(1 + count // 2, count - 1)]] = True
        return masked_F
