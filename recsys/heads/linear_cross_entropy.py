"""Softmax cross-entropy of a linear layer without ever holding all logits.

Shapes: N = predictions, D = width, I = rows of the item table, C = predictions in one chunk.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

CHUNK_LOGITS = 2_000_000  # 8 MB of float32: the fastest of 0.5, 2, 8, 32 and 64 MB (docs/results.md)


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, first_item: int) -> Tensor:
        loss_N = hidden_ND.new_empty(len(hidden_ND))
        lse_N = torch.empty_like(loss_N)
        for begin, end in _chunks(len(hidden_ND), len(table_ID)):
            logits_CI = _logits(hidden_ND[begin:end], table_ID, first_item)
            torch.logsumexp(logits_CI, dim=1, out=lse_N[begin:end])
            picked_C = logits_CI.gather(1, target_N[begin:end, None]).squeeze(1)
            torch.sub(lse_N[begin:end], picked_C, out=loss_N[begin:end])
        ctx.save_for_backward(hidden_ND, table_ID, target_N, lse_N)
        ctx.first_item = first_item
        return loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_N: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_ND, table_ID, target_N, lse_N = ctx.saved_tensors
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_table_ID = torch.zeros_like(table_ID)
        for begin, end in _chunks(len(hidden_ND), len(table_ID)):
            hidden_CD = hidden_ND[begin:end]
            residual_CI = _logits(hidden_CD, table_ID, ctx.first_item)
            residual_CI.sub_(lse_N[begin:end, None]).exp_()
            residual_CI.scatter_add_(1, target_N[begin:end, None], residual_CI.new_full((end - begin, 1), -1.0))
            residual_CI.mul_(grad_N[begin:end, None])
            torch.mm(residual_CI, table_ID, out=grad_hidden_ND[begin:end])
            grad_table_ID.addmm_(residual_CI.T, hidden_CD)
        return grad_hidden_ND, grad_table_ID, None, None


def _chunks(num_rows: int, num_items: int) -> list[tuple[int, int]]:
    step = max(1, CHUNK_LOGITS // max(1, num_items))
    return [(begin, min(begin + step, num_rows)) for begin in range(0, num_rows, step)]


def _logits(hidden_CD: Tensor, table_ID: Tensor, first_item: int) -> Tensor:
    logits_CI = hidden_CD @ table_ID.T
    logits_CI[:, :first_item] = -torch.inf
    return logits_CI


def linear_cross_entropy(hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, first_item: int) -> Tensor:
    """Return loss_N = -log softmax(hidden @ table.T)[target], rows below `first_item` never being candidates.

    Logits are made chunk by chunk and again in the backward pass, so memory is O(N + I) instead of O(N * I): a fourth
    matrix product buys a catalogue of a million items. Same idea as Cut Cross-Entropy, Wijmans et al. 2024,
    https://arxiv.org/abs/2411.09009. Differs from the paper: no gradient filtering, the gradient is exact.
    """
    return _LinearCrossEntropy.apply(hidden_ND, table_ID, target_N, first_item)
