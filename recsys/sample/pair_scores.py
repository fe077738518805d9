"""Scores of chosen pairs of users and items, without a score for every pair and without a copy of an item for every pair.

Shapes: N = predictions, D = width, C = items, K = items chosen for each prediction.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

CHUNK_NUMBERS = 1_000_000  # of item vectors side by side at once: 4 MB


class _PairScores(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, user_ND: Tensor, item_CD: Tensor, chosen_NK: Tensor) -> Tensor:
        ctx.save_for_backward(user_ND, item_CD, chosen_NK)
        score_NK = user_ND.new_empty(chosen_NK.shape)
        for rows in _chunks(chosen_NK, user_ND.shape[1]):
            vector_CKD = functional.embedding(chosen_NK[rows], item_CD)
            score_NK[rows] = torch.bmm(vector_CKD, user_ND[rows, :, None]).squeeze(2)
        return score_NK

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_NK: Tensor) -> tuple[Tensor | None, ...]:
        user_ND, item_CD, chosen_NK = ctx.saved_tensors
        grad_NK, by_user_ND, by_item_CD = grad_NK.contiguous(), None, None
        if ctx.needs_input_grad[0]:
            by_user_ND = functional.embedding_bag(chosen_NK, item_CD, mode="sum", per_sample_weights=grad_NK)
        if ctx.needs_input_grad[1]:
            by_item_CD = torch.zeros_like(item_CD)
            for rows in _chunks(chosen_NK, user_ND.shape[1]):
                share_CKD = grad_NK[rows, :, None] * user_ND[rows, None, :]
                by_item_CD.index_add_(0, chosen_NK[rows].flatten(), share_CKD.flatten(0, 1))
        return by_user_ND, by_item_CD, None


def _chunks(chosen_NK: Tensor, width: int) -> Iterator[slice]:
    step = max(1, CHUNK_NUMBERS // max(1, width * chosen_NK.shape[1]))
    return (slice(begin, begin + step) for begin in range(0, len(chosen_NK), step))


def pair_scores(user_ND: Tensor, item_CD: Tensor, chosen_NK: Tensor) -> Tensor:
    """Return score_NK = user_ND[n] @ item_CD[chosen_NK[n, k]] in float32 or wider, also under autocast.

    Beside inputs and gradients, memory is O(N * K), where all scores would be N * C and gathered vectors N * K * D.
    """
    with torch.autocast(user_ND.device.type, enabled=False):
        wide = torch.promote_types(torch.promote_types(user_ND.dtype, item_CD.dtype), torch.float32)
        return _PairScores.apply(user_ND.to(wide), item_CD.to(wide), chosen_NK)
