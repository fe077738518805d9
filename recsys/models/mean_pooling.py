"""The mean of the history's vectors, the plainest encoder. Shapes: B = users, M = tokens of all users (history + 1 start token
each), L = longest sequence of the batch in tokens, D = width.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.tokens import join_start, join_start_padded, last_token
from recsys.spec import Spec


class MeanPooling(Spec):
    """The mean of the start token and the items so far, through one layer: the bag of watches of YouTube's candidate
    generation, Covington et al. 2016, https://doi.org/10.1145/2959100.2959190.

    Order says nothing to it. Differs from the paper: no features beside the items, and one layer instead of three.
    """

    kind: Literal["mean_pooling"] = "mean_pooling"
    reads_time: ClassVar[bool] = False
    dim: int = Field(64, ge=4, description="width of item vectors and of the encoder")
    dropout: float = Field(0.2, ge=0, lt=1)

    def build(self, max_history: int) -> "MeanPoolingEncoder":
        return MeanPoolingEncoder(self)


class MeanPoolingEncoder(nn.Module):
    reads_time = False

    def __init__(self, spec: MeanPooling):
        super().__init__()
        self.scale = spec.dim**0.5
        self.start = nn.Parameter(torch.randn(1, spec.dim) * 0.02)
        self.out = nn.Sequential(nn.LayerNorm(spec.dim), nn.Dropout(spec.dropout), nn.Linear(spec.dim, spec.dim))

    def forward(self, history_ND: Tensor, length_B: Tensor, time_M: Tensor | None = None) -> Tensor:
        """Encode jagged histories; N = sum of `length_B`. Return hidden_MD, each user's start token first."""
        x_MD, grid = join_start(history_ND * self.scale, length_B, self.start)
        sum_BLD = grid.padded(x_MD).view(grid.batch, grid.length, -1).cumsum(1)
        return self.out(grid.real(sum_BLD.flatten(0, 1)) / (grid.column_M + 1)[:, None])

    def encode_padded(self, history_BLD: Tensor, length_B: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """Encode right-padded histories, the form ONNX takes. Return user_BD, the state after the last real item."""
        x_MD, grid = join_start_padded(history_BLD * self.scale, self.start)
        sum_BLD = x_MD.view(grid.batch, grid.length, -1).cumsum(1)
        return self.out(last_token(sum_BLD, grid, length_B) / (length_B + 1)[:, None])
