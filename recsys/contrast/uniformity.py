"""How evenly vectors lie on the sphere. Shapes: V = vectors."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from recsys.contrast.pairs import ContrastSpec


class UniformitySpec(ContrastSpec):
    """A loss of a batch's pairs of user and item, as a further term of the retriever's."""

    reads_modalities: ClassVar[bool] = False

    gamma: float = Field(1.0, ge=0, description="weight of uniformity beside alignment")
    t: float = Field(2.0, gt=0, le=20, description="how much more the nearest vectors count than the others")
    weight: float = Field(0.1, gt=0, description="of this term in the retriever's loss")
    pairs: int = Field(
        1024, ge=2, description="events of a batch, at random, that are compared: time and memory grow with the square"
    )


def uniformity(cosine_VV: Tensor, whose_V: Tensor, *, t: float, similarity_VV: Tensor | float = 1.0) -> Tensor:
    """log of the mean of exp(2 t (cosine - similarity)) over all pairs of different things; 0 where there is no pair.

    With similarity 1 that is log mean exp(-t |u - v|^2), as 2 (cosine - 1) = -|u - v|^2 for vectors of length 1.
    """
    other_VV = whose_V[:, None] != whose_V
    count = other_VV.sum()
    mean = ((2 * t * (cosine_VV - similarity_VV)).exp() * other_VV).sum() / count.clamp(min=1)
    return torch.where(count > 0, mean, torch.ones_like(mean)).log()
