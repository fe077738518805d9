"""Point-in-time features as one field of the ranker.

Shapes: B = examples or requests, C = candidates, P = features, D = width of a field.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

MOST = 5.0  # standard deviations from the mean
LEAST = 1e-6  # a smaller deviation, of 1 + the mean, is rounding
SPREAD = 0.1  # of the field at the begin of training, as wide as the tables' vectors


class Scale(NamedTuple):
    """Of each feature over the training examples."""

    mean_P: Tensor
    std_P: Tensor


class DenseFeatures(nn.Module):
    """vector_BCD = W clip((x - mean) / std, -5, 5) + b.

    Mean and standard deviation are those of the training examples; they are kept with the parameters, so that a request is
    scaled as training was. A feature that never varied there has a deviation of 1. The clip bounds what a count can do that has
    grown, since training, beyond all that training saw.
    """

    def __init__(self, num_features: int, dim: int):
        super().__init__()
        self.mean_P: Tensor
        self.std_P: Tensor
        self.register_buffer("mean_P", torch.zeros(num_features))
        self.register_buffer("std_P", torch.ones(num_features))
        self.linear = nn.Linear(num_features, dim)
        nn.init.normal_(self.linear.weight, std=SPREAD * (dim * num_features) ** -0.5)
        nn.init.zeros_(self.linear.bias)

    def set_scale(self, scale: Scale) -> None:
        self.mean_P.copy_(scale.mean_P)
        self.std_P.copy_(torch.where(scale.std_P > LEAST * (1 + scale.mean_P.abs()), scale.std_P, 1))

    def forward(self, value_BCP: Tensor) -> Tensor:
        return self.linear(((value_BCP - self.mean_P) / self.std_P).clamp(-MOST, MOST))
