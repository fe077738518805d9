"""Softmax cross-entropy of a linear layer without ever holding all logits.

Shapes: N = predictions, D = width, I = rows of the item table, R = real items (rows from `first_item` on), C = predictions in
one chunk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

CHUNK_LOGITS = 2_000_000  # 8 MB of float32: the fastest of 0.5, 2, 8, 32 and 64 MB (docs/results.md)
CHUNK_LOGITS_GPU = 64_000_000  # 256 MB: large products, and still a small part of its memory
KEPT_LOGITS = 50_000_000  # 200 MB of probabilities held from the losses to their gradients, where those wait for weights
MIN_ROWS = 64  # of a chunk, however many items: fewer would read the whole table for next to no arithmetic


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden_ND: Tensor,
        table_ID: Tensor,
        target_N: Tensor,
        first_item: int,
        at_once: bool,
        keep: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        loss_N = hidden_ND.new_empty(len(hidden_ND), dtype=table_ID.dtype)
        product = _Product(hidden_ND, table_ID, first_item, dtype)
        ctx.gradients = _Gradients(product) if at_once else None
        column_N, ctx.kept, room = target_N - first_item, [], KEPT_LOGITS if keep else 0
        for rows, logits_CR in product.chunks(fresh=room):
            picked_C = logits_CR.gather(1, column_N[rows, None]).squeeze(1)
            loss_N[rows] = _softmax(logits_CR) - picked_C
            if ctx.gradients is not None:
                ctx.gradients.add(rows, product.residual(logits_CR, column_N[rows]))
            elif logits_CR.numel() <= room:
                ctx.kept.append((rows, product.residual(logits_CR, column_N[rows])))
                room -= logits_CR.numel()
            else:
                room = 0  # what is kept stands at the front
        ctx.save_for_backward(hidden_ND, table_ID, target_N)
        ctx.first_item, ctx.dtype = first_item, dtype
        return loss_N

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, table_ID, target_N = ctx.saved_tensors
        ready, ctx.gradients = ctx.gradients, None  # handed out once; a second backward pass makes them anew
        if ready is not None and bool((grad_N == grad_N[:1]).all()):
            ready.scale(grad_N[:1])
        else:
            del ready
            product, column_N = _Product(hidden_ND, table_ID, ctx.first_item, ctx.dtype), target_N - ctx.first_item
            ready, kept = _Gradients(product), ctx.kept
            for rows, residual_CR in kept:
                ready.add(rows, residual_CR, grad_N[rows, None])
            for rows, logits_CR in product.chunks(first=kept[-1][0].stop if kept else 0):
                _softmax(logits_CR)
                ready.add(rows, product.residual(logits_CR, column_N[rows]), grad_N[rows, None])
        return ready.hidden_ND.to(hidden_ND.dtype), ready.table_ID.to(table_ID.dtype), None, None, None, None, None


class _Product:
    """Hidden states times items, chunk by chunk, multiplied in `dtype` and handed out in the table's type."""

    def __init__(self, hidden_ND: Tensor, table_ID: Tensor, first_item: int, dtype: torch.dtype):
        self.first_item, self.wide = first_item, table_ID.dtype
        self.hidden_ND, self.item_RD = hidden_ND.to(dtype), table_ID[first_item:].to(dtype)
        logits = CHUNK_LOGITS_GPU if hidden_ND.is_cuda else CHUNK_LOGITS
        self.step = max(MIN_ROWS, logits // max(1, len(self.item_RD)))

    def chunks(self, *, first: int = 0, fresh: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Rows of a chunk and their logits. Chunks share one buffer, so what is done to one must be over before the next; the
        first `fresh` logits have memory of their own where nothing has to be converted."""
        size, exact = (min(self.step, len(self.hidden_ND)), len(self.item_RD)), self.hidden_ND.dtype == self.wide
        buffer_CR = self.hidden_ND.new_empty(size, dtype=self.wide)
        half_CR = buffer_CR if exact else self.hidden_ND.new_empty(size)
        for begin in range(first, len(self.hidden_ND), self.step):
            rows = slice(begin, min(begin + self.step, len(self.hidden_ND)))
            count, fresh = rows.stop - begin, fresh - (rows.stop - begin) * len(self.item_RD)
            out_CR = torch.empty_like(half_CR[:count]) if exact and fresh >= 0 else half_CR[:count]
            logits_CR = torch.mm(self.hidden_ND[rows], self.item_RD.T, out=out_CR)
            yield rows, logits_CR if exact else buffer_CR[:count].copy_(logits_CR)

    def residual(self, share_CR: Tensor, column_C: Tensor) -> Tensor:
        """Probabilities less one at the target, in the type of the products; in place where that is the same."""
        share_CR.scatter_add_(1, column_C[:, None], share_CR.new_full((len(share_CR), 1), -1.0))
        return share_CR.to(self.hidden_ND.dtype)


class _Gradients:
    """The gradients of the loss in the table's type, filled chunk by chunk."""

    def __init__(self, product: _Product):
        hidden_ND, item_RD = product.hidden_ND, product.item_RD
        self.hidden_ND = torch.empty_like(hidden_ND, dtype=product.wide)
        self.table_ID = item_RD.new_zeros(len(item_RD) + product.first_item, item_RD.shape[1], dtype=product.wide)
        self._inputs = hidden_ND, item_RD, self.table_ID[product.first_item :]

    def add(self, rows: slice, residual_CR: Tensor, weight_C1: Tensor | None = None) -> None:
        """Take a chunk to both sides."""
        hidden_ND, item_RD, grad_RD = self._inputs
        hidden_CD = hidden_ND[rows]
        if hidden_ND.dtype == self.hidden_ND.dtype:
            torch.mm(residual_CR, item_RD, out=self.hidden_ND[rows])
        else:
            self.hidden_ND[rows] = torch.mm(residual_CR, item_RD)
        if weight_C1 is not None:
            self.hidden_ND[rows] *= weight_C1
            hidden_CD = hidden_CD * weight_C1.to(hidden_CD.dtype)
        if hidden_ND.dtype == self.hidden_ND.dtype:
            grad_RD.addmm_(residual_CR.T, hidden_CD)
        else:
            grad_RD.add_(torch.mm(residual_CR.T, hidden_CD))

    def scale(self, factor: Tensor) -> None:
        self.hidden_ND.mul_(factor)
        self.table_ID.mul_(factor)


def _softmax(logits_CR: Tensor) -> Tensor:
    """Turn logits into probabilities, in place; return their logsumexp.

    Torch's softmax is several times as fast as its logsumexp or exp on a CPU. The likeliest item's probability is
    1 / sum(exp(logit - highest)), at least 1 / R, so its log is exact where the target's would underflow.
    """
    highest_C = logits_CR.amax(1)
    torch.softmax(logits_CR, 1, out=logits_CR)
    return highest_C - logits_CR.amax(1).log_()


def linear_cross_entropy(
    hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, first_item: int, even: bool = True
) -> Tensor:
    """Return loss_N = -log softmax(hidden @ table.T)[target], rows below `first_item` never being candidates.

    Logits are made chunk by chunk, so memory is O(N + I) instead of O(N * I). Same idea as Cut Cross-Entropy, Wijmans et al.
    2024, https://arxiv.org/abs/2411.09009. Differs from the paper: no gradient filtering, the gradient is exact.
    Under autocast the three matrix products are in its type and all else, sums over chunks among it, in that of the table.
    `even` expects every loss to weigh the same, as under a mean: the gradients are then made with the losses from the same
    logits. Where the weights turn out to differ, the logits are made again: say `even=False` where that is known before.
    """
    needed = torch.is_grad_enabled() and (hidden_ND.requires_grad or table_ID.requires_grad)
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table_ID.dtype
    with torch.autocast(device, enabled=False):
        return _LinearCrossEntropy.apply(hidden_ND, table_ID, target_N, first_item, even and needed, needed and not even, dtype)
