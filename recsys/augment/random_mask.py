"""Random feature masking. Shapes: F = features."""

from typing import Literal

import torch
from torch import Generator, Tensor

from recsys.augment.feature_mask import FeatureMaskSpec


class RandomMask(FeatureMaskSpec):
    """A random half of the features is masked. RFM, Yao et al. 2021, https://arxiv.org/abs/2007.12865."""

    kind: Literal["random"] = "random"

    def __call__(self, mutual_FF: Tensor, generator: Generator) -> Tensor:
        count = len(mutual_FF)
        masked_F = torch.zeros(count, dtype=torch.bool)
        masked_F[torch.randperm(count, generator=generator)[: count // 2]] = True
        return masked_F
