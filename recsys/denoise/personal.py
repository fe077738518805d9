"""Personalised denoising: a user's positives are drawn anew by that user's own losses.

Shapes: B = examples or events, P = pools, K = places of a pool.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from recsys.denoise.denoiser import DenoiserSpec
from recsys.weighing import Context


class Personal(DenoiserSpec):
    """Within a pool of one user's positives, draw which to train on, with probability softmax(-loss / temperature).

    PLD, Zhang et al. 2025, https://arxiv.org/abs/2502.00348: losses of noisy and of clean positives overlap over all users, but
    come apart within one. For any loss, pointwise or pairwise. Differs from the paper: a pool is made of `pool_size` positives
    that stand in the batch anyway (of a window's events, or of a user's rows that the loader keeps together), so users count by
    their activity as without it, and as many draws are made as the pool has members, which leaves the learning rate as it
    was; `resample: false` takes the draws' expectation as weights, which has the same mean gradient and less variance.
    """

    kind: Literal["personal"] = "personal"
    pool_size: int = Field(5, ge=2, description="positives of one user among which is drawn")
    temperature: float = Field(0.1, gt=0, description="lower: nearer to each pool's likeliest positive alone")
    start_step: int = Field(0, ge=0, description="training steps before the first draw, while losses say little")
    resample: bool = Field(True, description="draw; false: weigh by the probability of being drawn")

    @property
    def together(self) -> int:
        return self.pool_size

    @classmethod
    def neutral(cls) -> "Personal":
        return cls(start_step=2**62)

    def __call__(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """Return weight_B, whose sum over a pool is its size; negatives (label 0) and missing labels (NaN) weigh 1."""
        weight_B = torch.ones_like(loss_B, requires_grad=False)
        positive_P = (label_B == 1).nonzero().squeeze(1)
        if context.step < self.start_step or not len(positive_P):
            return weight_B
        generator = context.generator()
        cell_P = self._cells(context.group_B[positive_P], generator)
        pools = int(cell_P.max()) // self.pool_size + 1
        loss_PK = loss_B.new_full((pools * self.pool_size,), torch.inf)
        loss_PK = loss_PK.index_copy(0, cell_P, loss_B.detach()[positive_P]).view(pools, self.pool_size)
        inside_PK = torch.isfinite(loss_PK)
        size_P = inside_PK.sum(1)
        share_PK = torch.softmax(-loss_PK / self.temperature, dim=1)
        drawn_PK = self._draws(share_PK, size_P, generator) if self.resample else share_PK * size_P[:, None]
        weight_B[positive_P] = drawn_PK.flatten()[cell_P].to(weight_B.dtype)
        return weight_B

    def _cells(self, group_P: Tensor, generator: Generator) -> Tensor:
        """A place for each positive in a grid of pools: those of one user in random order, `pool_size` to a pool."""
        lot_P = torch.randint(1 << 31, (len(group_P),), generator=generator).to(group_P.device)
        order_P = torch.argsort(group_P << 31 | lot_P)  # one sort, by user and then by lot
        _, size_G = torch.unique_consecutive(group_P[order_P], return_counts=True)
        pools_G = (size_G + self.pool_size - 1) // self.pool_size
        start_G = (pools_G.cumsum(0) - pools_G) * self.pool_size
        first_G = size_G.cumsum(0) - size_G
        place_P = torch.arange(len(group_P), device=group_P.device) + torch.repeat_interleave(start_G - first_G, size_G)
        cell_P = torch.empty_like(place_P)
        cell_P[order_P] = place_P
        return cell_P

    def _draws(self, share_PK: Tensor, size_P: Tensor, generator: Generator) -> Tensor:
        """How often each place of a pool is drawn, with replacement, as many times as the pool has members."""
        at_PK = torch.rand(share_PK.shape, generator=generator, dtype=torch.float64).to(share_PK.device)
        bound_PK = share_PK.double().cumsum(1)
        bound_PK = bound_PK / bound_PK[:, -1:]
        place_PK = torch.searchsorted(bound_PK, at_PK, right=True).clamp(max=self.pool_size - 1)
        made_PK = torch.arange(self.pool_size, device=size_P.device) < size_P[:, None]
        return torch.zeros_like(share_PK).scatter_add_(1, place_PK, made_PK.to(share_PK.dtype))
