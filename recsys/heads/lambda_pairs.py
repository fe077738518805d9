"""Next item above each negative, most of all where a swap would change the list.

Shapes: N = predictions, S = negatives of a row.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.heads.bpr import weighted
from recsys.spec import Spec


class LambdaPairs(Spec):
    """The loss of ADORE, Zhan et al. 2021, https://arxiv.org/abs/2104.08051, after LambdaRank, Burges et al. 2006.

    A pair weighs what its swap would change in the reciprocal rank, |1 / rank of the target - 1 / rank of the negative|: places
    in the list of the row's own target and negatives as they are scored now. Made for `hard: {kind: dynamic}`, whose negatives
    are such a list. The weights are constants of a step and jump where a rank changes, so the loss of a better target may be
    higher; its gradient always lifts the target.

    A target below the last negative has the rank after it, as the paper appends it. Beyond `cut` a reciprocal rank counts as
    0: places beyond it are all the same, but a target there still pairs with the negatives within it. Differs from the paper's
    code, in which no `cut` (here null) leaves every weight 0; ties count against the target.
    """

    kind: Literal["lambda_pairs"] = "lambda_pairs"
    sampled: ClassVar[bool] = True
    cut: int | None = Field(200, ge=1, description="ranks beyond it are all the same; null: none are")

    def __call__(
        self, positive_N: Tensor, negative_NS: Tensor, log_expected_N: Tensor, log_expected_S: Tensor, num_items: int,
        weight_NS: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return loss_N, the mean over the row's pairs. Hits in `negative_NS` are -inf (`mask_hits`). No logQ correction."""
        pair_NS = functional.softplus(negative_NS - positive_N[:, None])
        return weighted(pair_NS * self._swap(positive_N.detach(), negative_NS.detach()), negative_NS, weight_NS)

    def _swap(self, positive_N: Tensor, negative_NS: Tensor) -> Tensor:
        """How much the reciprocal rank would change if target and negative changed places."""
        above_NS = negative_NS >= positive_N[:, None]
        above_NS &= negative_NS.isfinite()
        order_NS = negative_NS.argsort(dim=1, descending=True, stable=True)
        place_S = torch.arange(1, negative_NS.shape[1] + 1, device=negative_NS.device)
        rank_NS = torch.empty_like(order_NS).scatter_(1, order_NS, place_S.expand_as(order_NS))
        target_N1 = 1 + above_NS.sum(1, keepdim=True)
        return (self._gain(target_N1) - self._gain(rank_NS + ~above_NS)).abs()  # those below the target are one place lower

    def _gain(self, rank: Tensor) -> Tensor:
        gain = 1.0 / rank
        return gain if self.cut is None else gain.masked_fill(rank > self.cut, 0.0)
