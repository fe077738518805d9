"""SASRec: a causal transformer over a user's history. Shapes: B = users, M = tokens of all users (history + 1 start
token each), L = longest sequence of the batch in tokens, D = width, H = heads.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from recsys.spec import Spec


class SASRec(Spec):
    """Self-attentive sequential recommendation, Kang and McAuley 2018, https://arxiv.org/abs/1808.09781.

    Differs from the paper: every sequence begins with a learned start token, so an empty history has a prediction;
    pre-norm blocks as in later reproductions; dropout only where a block joins the residual stream, which keeps the fused
    attention kernel usable on a CPU.
    """

    kind: Literal["sasrec"] = "sasrec"
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
        self.heads = spec.heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(spec.dim), nn.LayerNorm(spec.dim)
        self.query_key_value = nn.Linear(spec.dim, 3 * spec.dim)
        self.out = nn.Linear(spec.dim, spec.dim)
        inner = spec.feed_forward * spec.dim
        self.feed = nn.Sequential(nn.Linear(spec.dim, inner), nn.GELU(), nn.Linear(inner, spec.dim))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x_MD: Tensor, place_M: Tensor | None, batch: int, length: int) -> Tensor:
        """Attend within each user. `place_M` is each token's cell in the padded (B * L) grid; None: tokens fill the grid."""
        dim = x_MD.shape[-1]
        parts = self.query_key_value(self.norm_attention(x_MD))
        if place_M is not None:
            parts = parts.new_zeros(batch * length, 3 * dim).index_copy(0, place_M, parts)
        query, key, value = parts.view(batch, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch * length, dim)
        if place_M is not None:
            mixed = mixed.index_select(0, place_M)
        x_MD = x_MD + self.dropout(self.out(mixed))
        return x_MD + self.dropout(self.feed(self.norm_feed(x_MD)))


class SASRecEncoder(nn.Module):
    """Padding sits on the right of every sequence, so the causal mask alone hides it from real positions."""

    def __init__(self, spec: SASRec, max_history: int):
        super().__init__()
        self.scale = spec.dim**0.5
        self.start = nn.Parameter(torch.randn(1, spec.dim) * 0.02)
        self.place = nn.Parameter(torch.randn(max_history + 1, spec.dim) * 0.02)
        self.dropout = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.blocks))
        self.norm = nn.LayerNorm(spec.dim)

    def forward(self, history_ND: Tensor, length_B: Tensor) -> Tensor:
        """Encode jagged histories; N = sum of `length_B`. Return hidden_MD, each user's start token first."""
        batch, device = len(length_B), history_ND.device
        tokens_B = length_B + 1
        user_M = torch.repeat_interleave(torch.arange(batch, device=device), tokens_B)
        column_M = torch.arange(len(user_M), device=device) - torch.repeat_interleave(tokens_B.cumsum(0) - tokens_B, tokens_B)
        longest = int(tokens_B.max())
        is_start_M = column_M == 0
        x_MD = history_ND.new_empty(len(user_M), history_ND.shape[1])
        x_MD = x_MD.index_copy(0, (~is_start_M).nonzero().squeeze(1), history_ND * self.scale)
        x_MD = x_MD.index_copy(0, is_start_M.nonzero().squeeze(1), self.start.expand(batch, -1))
        return self._encode(x_MD + self.place[column_M], user_M * longest + column_M, batch, longest)

    def encode_padded(self, history_BLD: Tensor, length_B: Tensor) -> Tensor:
        """Encode right-padded histories, the form ONNX takes. Return user_BD, the state after the last real item."""
        batch, length, dim = history_BLD.shape
        x_BLD = torch.cat([self.start.expand(batch, 1, dim), history_BLD * self.scale], dim=1) + self.place[: length + 1]
        hidden_MD = self._encode(x_BLD.reshape(batch * (length + 1), dim), None, batch, length + 1)
        return hidden_MD.view(batch, length + 1, dim)[torch.arange(batch, device=x_BLD.device), length_B]

    def _encode(self, x_MD: Tensor, place_M: Tensor | None, batch: int, length: int) -> Tensor:
        x_MD = self.dropout(x_MD)
        for block in self.blocks:
            x_MD = block(x_MD, place_M, batch, length)
        return self.norm(x_MD)
