"""Fusion of vectors along the sphere. Shapes: V = rows, D = width."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.contrast.pairs import unit

WIDEST_COSINE = 1 - 1e-6  # beyond it the sine of the angle drowns in rounding; there the formula is a straight line already


def slerp(first_VD: Tensor, second_VD: Tensor, share_V: Tensor) -> Tensor:
    """The point of the arc between two unit vectors with `share` of the angle on the first's side; zero adds nothing."""
    angle_V = (first_VD * second_VD).sum(1).clamp(-WIDEST_COSINE, WIDEST_COSINE).acos()
    first_V, second_V = (share_V * angle_V).sin() / angle_V.sin(), ((1 - share_V) * angle_V).sin() / angle_V.sin()
    return unit(first_V[:, None] * first_VD + second_V[:, None] * second_VD)


def spherical_bezier(vector_VD: Sequence[Tensor], share_V: Sequence[Tensor]) -> Tensor:
    """Unit vectors fused one after another, each with what the ones before it came to; one share per step."""
    fused_VD = unit(vector_VD[0])
    for next_VD, share in zip(vector_VD[1:], share_V, strict=True):
        fused_VD = slerp(fused_VD, unit(next_VD), share.to(fused_VD))
    return torch.as_tensor(fused_VD)
