"""HSTU: gated attention without softmax, biased by relative position and time.

Shapes: B = users, M = tokens of all users (history + 1 start token each), L = longest sequence of the batch in tokens,
D = width, H = heads, E = width of a head, P = relative positions, K = buckets of elapsed time.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from recsys.models.pointwise_attention import pointwise_attention
from recsys.models.tokens import Grid, join_start, join_start_padded, last_token
from recsys.spec import Spec

BUCKETS = 129
BUCKET_WIDTH = 0.301  # of the natural logarithm of seconds, as released: each bucket is 1.35 times as long as the one before


class HSTU(Spec):
    """Hierarchical sequential transduction unit, Zhai et al. 2024, https://arxiv.org/abs/2402.17152.

    The query of a token carries the time of the event it is to predict, which a server knows: it is the time of the request.
    Differs from the released code: a learned start token, so an empty history has a prediction; attention is divided by
    `max_history + 1` instead of the padded length, so that training and serving agree at every length.
    """

    kind: Literal["hstu"] = "hstu"
    reads_time: ClassVar[bool] = True
    dim: int = Field(64, ge=4, description="width of item vectors and of the encoder")
    blocks: int = Field(4, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    query_time: Literal["request", "last_event"] = Field(
        "request", description="what elapsed time is counted to: the event to predict, as released, or the last one known"
    )

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "HSTU":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not divisible by heads {self.heads}")
        return self

    def build(self, max_history: int) -> "HSTUEncoder":
        return HSTUEncoder(self, max_history)


class Block(nn.Module):
    def __init__(self, spec: HSTU, max_tokens: int):
        super().__init__()
        self.heads, self.dim, self.max_tokens = spec.heads, spec.dim, max_tokens
        self.gate_value_query_key = nn.Linear(spec.dim, 4 * spec.dim, bias=False)
        nn.init.normal_(self.gate_value_query_key.weight, std=0.02)
        self.out = nn.Linear(spec.dim, spec.dim)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.position_P = nn.Parameter(torch.randn(max_tokens) * 0.02)
        self.time_K = nn.Parameter(torch.randn(BUCKETS) * 0.02)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x_MD: Tensor, grid: Grid, bucket_BLL: Tensor) -> Tensor:
        parts = functional.silu(self.gate_value_query_key(_norm(x_MD)))
        gate_MD, rest = parts.split([self.dim, 3 * self.dim], dim=-1)
        value, query, key = (
            grid.padded(rest).view(grid.batch, grid.length, 3, self.heads, self.dim // self.heads).permute(2, 0, 3, 1, 4)
        )
        mixed = pointwise_attention(query, key, value, self.position_P, self.time_K, bucket_BLL, self.max_tokens)
        mixed_MD = grid.real(mixed.transpose(1, 2).reshape(grid.batch * grid.length, self.dim))
        return x_MD + self.out(self.dropout(gate_MD * _norm(mixed_MD)))

    def last(self, x_MD: Tensor, grid: Grid, bucket_BLL: Tensor, length_B: Tensor) -> Tensor:
        """user_BD: what `forward` gives for the token after each user's last item, without the others' queries and gates."""
        row_B = torch.arange(grid.batch, device=x_MD.device)
        place_L = torch.arange(grid.length, device=x_MD.device)
        last_BD = last_token(x_MD, grid, length_B)
        weight_gate, weight_value, weight_query, weight_key = self.gate_value_query_key.weight.split(self.dim)
        normed_MD, normed_BD = _norm(x_MD), _norm(last_BD)
        value, key = (
            functional.silu(normed_MD @ weight.T).view(grid.batch, grid.length, self.heads, -1)
            for weight in (weight_value, weight_key)
        )
        query = functional.silu(normed_BD @ weight_query.T).view(grid.batch, self.heads, 1, -1)
        after_BL = length_B[:, None] - place_L
        bias_BL = self.time_K[bucket_BLL[row_B, length_B].long()] + self.position_P[after_BL.clamp(min=0)]
        bias_BL = bias_BL.masked_fill(after_BL < 0, -1e4)
        weight = functional.silu(query @ key.permute(0, 2, 3, 1) + bias_BL[:, None, None]) / self.max_tokens
        mixed_BD = (weight @ value.transpose(1, 2)).reshape(grid.batch, self.dim)
        gate_BD = functional.silu(normed_BD @ weight_gate.T)
        return last_BD + self.out(self.dropout(gate_BD * _norm(mixed_BD)))


class HSTUEncoder(nn.Module):
    """Padding sits on the right of every sequence, so the causal mask alone hides it from real positions."""

    reads_time = True

    def __init__(self, spec: HSTU, max_history: int):
        super().__init__()
        self.scale, self.knows_request = spec.dim**0.5, spec.query_time == "request"
        self.start = nn.Parameter(torch.randn(1, spec.dim) * 0.02)
        self.place = nn.Parameter(torch.randn(max_history + 1, spec.dim) * 0.02)
        self.dropout = nn.Dropout(spec.dropout)
        self.blocks = nn.ModuleList(Block(spec, max_history + 1) for _ in range(spec.blocks))

    def forward(self, history_ND: Tensor, length_B: Tensor, time_M: Tensor) -> Tensor:
        """Encode jagged histories; N = sum of `length_B`. `time_M`: milliseconds of the event each token predicts.

        Return hidden_MD, each user's start token first.
        """
        x_MD, grid = join_start(history_ND * self.scale, length_B, self.start)
        time_BL = grid.padded(time_M[:, None]).view(grid.batch, grid.length)
        x_MD, bucket_BLL = (
            self.dropout(x_MD + self.place[grid.column_M]),
            elapsed_buckets(time_BL, knows_request=self.knows_request),
        )
        for block in self.blocks:
            x_MD = block(x_MD, grid, bucket_BLL)
        return x_MD

    def encode_padded(self, history_BLD: Tensor, length_B: Tensor, time_BM: Tensor) -> Tensor:
        """Encode right-padded histories, the form ONNX takes. `time_BM`: milliseconds of the events, the request's at
        column `length_B`. Return user_BD, the state after the last real item."""
        x_MD, grid = join_start_padded(history_BLD * self.scale, self.start)
        x_MD = (x_MD.view(grid.batch, grid.length, -1) + self.place[: grid.length]).flatten(0, 1)
        x_MD, bucket_BLL = self.dropout(x_MD), elapsed_buckets(time_BM, knows_request=self.knows_request)
        for block in self.blocks[:-1]:
            x_MD = block(x_MD, grid, bucket_BLL)
        return self.blocks[-1].last(x_MD, grid, bucket_BLL, length_B)


def elapsed_buckets(time_BL: Tensor, *, knows_request: bool) -> Tensor:
    """Bucket of the seconds between the event a query predicts, or else the one it holds, and the one a key holds, for every
    pair of tokens.

    A token holds the event that the token before it predicts; the start token counts as of the first one's time.
    """
    own_BL = torch.cat([time_BL[:, :1], time_BL[:, :-1]], dim=1)
    query_BL = time_BL if knows_request else own_BL
    seconds_BLL = (query_BL[:, :, None] - own_BL[:, None, :]).float() / 1000
    return (seconds_BLL.clamp(min=1).log() / BUCKET_WIDTH).clamp(max=BUCKETS - 1).to(torch.int32)


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)
