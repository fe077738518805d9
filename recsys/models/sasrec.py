"""SASRec: a causal transformer over a user's history. Shapes: B = users, M = tokens of all users (history + 1 start
token each), L = longest sequence of the batch in tokens, D = width, H = heads.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from recsys.models.tokens import Grid, join_start, join_start_padded, last_token
from recsys.spec import Spec


class SASRec(Spec):
    """Self-attentive sequential recommendation, Kang and McAuley 2018, https://arxiv.org/abs/1808.09781.

    Differs from the paper: every sequence begins with a learned start token, so an empty history has a prediction;
    pre-norm blocks as in later reproductions, without biases in the projections of attention; dropout only where a block joins
    the residual stream, which keeps the fused attention kernel usable on a CPU.
    """

    kind: Literal["sasrec"] = "sasrec"
    reads_time: ClassVar[bool] = False
    dim: int = Field(64, ge=4, description="width of item vectors and of the encoder")
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    feed_forward: int = Field(4, ge=1, description="inner width of the feed-forward layer, in multiples of dim")

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "SASRec":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        return self

    def build(self, max_history: int) -> "SASRecEncoder":
        return SASRecEncoder(self, max_history)


class Block(nn.Module):
    def __init__(self, spec: SASRec):
        super().__init__()
        self.heads, self.dim = spec.heads, spec.dim
        self.norm_attention, self.norm_feed = nn.LayerNorm(spec.dim), nn.LayerNorm(spec.dim)
        self.query_key_value = nn.Linear(spec.dim, 3 * spec.dim, bias=False)  # a key's bias has no effect
        self.out = nn.Linear(spec.dim, spec.dim)
        inner = spec.feed_forward * spec.dim
        self.feed = nn.Sequential(nn.Linear(spec.dim, inner), nn.GELU(), nn.Linear(inner, spec.dim))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x_MD: Tensor, grid: Grid) -> Tensor:
        """Attend within each user."""
        parts = grid.padded(self.query_key_value(self.norm_attention(x_MD)))
        shape = grid.batch, grid.length, 3, self.heads, self.dim // self.heads
        query, key, value = parts.view(shape).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed_MD = grid.real(mixed.transpose(1, 2).reshape(grid.batch * grid.length, self.dim))
        x_MD = x_MD + self.dropout(self.out(mixed_MD))
        return x_MD + self.dropout(self.feed(self.norm_feed(x_MD)))


class SASRecEncoder(nn.Module):
    """Padding sits on the right of every sequence, so the causal mask alone hides it from real positions."""

    reads_time = False

    def __init__(self, spec: SASRec, max_history: int):
        super().__init__()
        self.scale = spec.dim**0.5
        self.start = nn.Parameter(torch.randn(1, spec.dim) * 0.02)
        self.place = nn.Parameter(torch.randn(max_history + 1, spec.dim) * 0.02)
        self.dropout = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, history_ND: Tensor, length_B: Tensor, time_M: Tensor | None = None) -> Tensor:
        """Encode jagged histories; N = sum of `length_B`. Return hidden_MD, each user's start token first."""
        x_MD, grid = join_start(history_ND * self.scale, length_B, self.start)
        return self._encode(x_MD + self.place[grid.column_M], grid)

    def encode_padded(self, history_BLD: Tensor, length_B: Tensor, time_BM: Tensor | None = None) -> Tensor:
        """Encode right-padded histories, the form ONNX takes. Return user_BD, the state after the last real item."""
        x_MD, grid = join_start_padded(history_BLD * self.scale, self.start)
        x_MD = (x_MD.view(grid.batch, grid.length, -1) + self.place[: grid.length]).flatten(0, 1)
        return last_token(self._encode(x_MD, grid), grid, length_B)

    def _encode(self, x_MD: Tensor, grid: Grid) -> Tensor:
        x_MD = self.dropout(x_MD)
        for block in self.blocks:
            x_MD = block(x_MD, grid)
        return self.norm(x_MD)
