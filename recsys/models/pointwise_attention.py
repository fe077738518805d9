"""Causal attention whose weights are SiLU(score) / n, with a bias by relative position and one by elapsed time.

Shapes: B = users, H = heads, L = tokens, E = width of a head, P = relative positions, K = buckets of elapsed time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNK_SCORES = 300_000  # scores in memory at once: about a megabyte stays in a core's cache


class _PointwiseAttention(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, position_P: Tensor, time_K: Tensor, bucket_BLL: Tensor, scale: int
    ) -> Tensor:
        mixed = torch.empty_like(value)
        bias_LL = position_bias(position_P, query.shape[2])
        for begin, end in _chunks(query):
            score = _scores(query[begin:end], key[begin:end], bias_LL, time_K, bucket_BLL[begin:end])
            weight = torch.nn.functional.silu(score, inplace=True).div_(scale).to(value.dtype)
            torch.matmul(weight, value[begin:end], out=mixed[begin:end])
        ctx.save_for_backward(query, key, value, position_P, time_K, bucket_BLL)
        ctx.scale = scale
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, position_P, time_K, bucket_BLL = ctx.saved_tensors
        length, half = query.shape[2], value.dtype
        bias_LL = position_bias(position_P, length)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        grad_bias_LL, grad_time_K = torch.zeros_like(bias_LL), torch.zeros_like(time_K, dtype=torch.float64)
        grad = grad / ctx.scale
        for begin, end in _chunks(query):
            q, k, v, g, bucket = (x[begin:end] for x in (query, key, value, grad, bucket_BLL))
            score = _scores(q, k, bias_LL, time_K, bucket)
            gate = score.sigmoid()
            weight = score.mul_(gate)
            torch.matmul(weight.to(half).transpose(-1, -2), g, out=grad_value[begin:end])
            # d silu = gate * (1 + score * (1 - gate)) = gate + weight - weight * gate; 0 far below zero, where the mask is
            slope = weight.addcmul_(weight, gate, value=-1).add_(gate)
            grad_score = slope.mul_(torch.matmul(g, v.transpose(-1, -2)))
            half_score = grad_score.to(half)
            torch.matmul(half_score, k, out=grad_query[begin:end])
            torch.matmul(half_score.transpose(-1, -2), q, out=grad_key[begin:end])
            by_pair = grad_score.sum(1)
            grad_bias_LL += by_pair.sum(0)
            grad_time_K += torch.bincount(bucket.flatten(), weights=by_pair.flatten(), minlength=len(time_K))
        offset_LL = _offsets(length, query.device)
        grad_position_P = torch.zeros_like(position_P).index_add(0, offset_LL.flatten(), grad_bias_LL.flatten())
        return grad_query, grad_key, grad_value, grad_position_P, grad_time_K.to(time_K.dtype), None, None


def _scores(query: Tensor, key: Tensor, bias_LL: Tensor, time_K: Tensor, bucket_BLL: Tensor) -> Tensor:
    """Scores with both biases, in their type; far below zero, where SiLU is 0, for tokens that come later."""
    bias = time_K.index_select(0, bucket_BLL.flatten()).view_as(bucket_BLL).add_(bias_LL)[:, None]
    product = torch.matmul(query, key.transpose(-1, -2))
    return product.add_(bias) if product.dtype == bias.dtype else product.to(bias.dtype).add_(bias)


def position_bias(position_P: Tensor, length: int) -> Tensor:
    """Bias of query i and key j by i - j; -1e4 where the key comes later, so that SiLU and its slope are 0 there."""
    later_LL = torch.ones(length, length, dtype=torch.bool, device=position_P.device).triu(1)
    return position_P[_offsets(length, position_P.device)].masked_fill(later_LL, -1e4)


def _offsets(length: int, device: torch.device) -> Tensor:
    place_L = torch.arange(length, device=device)
    return (place_L[:, None] - place_L[None, :]).clamp(min=0)


def _chunks(query: Tensor) -> list[tuple[int, int]]:
    batch, heads, length, _ = query.shape
    step = max(1, CHUNK_SCORES // (heads * length * length))
    return [(begin, min(begin + step, batch)) for begin in range(0, batch, step)]


def pointwise_attention(
    query: Tensor, key: Tensor, value: Tensor, position_P: Tensor, time_K: Tensor, bucket_BLL: Tensor, scale: int
) -> Tensor:
    """Return mixed (B, H, L, E) = SiLU(query key^T + biases) / scale @ value over each token and the ones before it.

    Scores are made again in the backward pass, chunk by chunk, so memory is O(B L E) and not O(B H L^2).
    """
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        bias_LL = position_bias(position_P, query.shape[2])
        bias = (time_K[bucket_BLL.long()] + bias_LL)[:, None]
        return torch.nn.functional.silu(query @ key.transpose(-1, -2) + bias) / scale @ value
    with torch.autocast(
        query.device.type, enabled=False
    ):  # matrix products in the type of the inputs, the rest in the biases' type
        return _PointwiseAttention.apply(query, key, value, position_P, time_K, bucket_BLL, scale)
