"""Explicit crosses of features. Shapes: leading axes are free; W = width of all fields."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from recsys.spec import Spec


class DCNV2(Spec):
    """Deep and cross network, version 2: x_(l+1) = x_0 * (W_l x_l + b_l) + x_l. Wang et al. 2021, https://arxiv.org/abs/2008.13535.

    The stacked form: the crossed vector is as wide as the fields and takes their place before the tasks share it. With `rank`,
    W_l = U_l V_l of that rank. Differs from the paper: no mixture of low-rank experts.
    """

    kind: Literal["dcn_v2"] = "dcn_v2"
    layers: int = Field(2, ge=1)
    rank: int | None = Field(None, ge=1, description="rank of each layer's matrix; null: full")

    def build(self, width: int) -> nn.Module:
        return _DCNV2(self, width)


class _DCNV2(nn.Module):
    def __init__(self, spec: DCNV2, width: int):
        super().__init__()
        self.layers = nn.ModuleList(_matrix(width, spec.rank) for _ in range(spec.layers))

    def forward(self, x_W: Tensor) -> Tensor:
        """Return crossed_W."""
        crossed_W = x_W
        for layer in self.layers:
            crossed_W = x_W * layer(crossed_W) + crossed_W
        return crossed_W


def _matrix(width: int, rank: int | None) -> nn.Module:
    if rank is None:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
