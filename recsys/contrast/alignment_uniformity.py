"""Alignment and uniformity. Shapes: V = pairs."""

from typing import Literal

from torch import Tensor

from recsys.contrast.pairs import Pairs, products, unit
from recsys.contrast.uniformity import UniformitySpec, uniformity


class AlignmentUniformity(UniformitySpec):
    """What belongs together lies close, and everything else lies evenly on the sphere: no negatives.

    Wang and Isola 2020, https://arxiv.org/abs/2005.10242, on users and items as in DirectAU, Wang et al. 2022,
    https://arxiv.org/abs/2206.12811: mean |u - i|^2 + gamma * (U(users) + U(items)) / 2. Differs from DirectAU: a user is the
    state that an encoder gives, several of one history are not told apart, nor are equal items.
    """

    kind: Literal["alignment_uniformity"] = "alignment_uniformity"

    def __call__(self, pairs: Pairs) -> Tensor:
        first_VD, second_VD = unit(pairs.first_VD), unit(pairs.second_VD)
        first = uniformity(products(first_VD, first_VD), pairs.first_V, t=self.t)
        second = uniformity(products(second_VD, second_VD), pairs.second_V, t=self.t)
        return (first_VD - second_VD).square().sum(1) + self.gamma * (first + second) / 2
