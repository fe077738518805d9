"""Next item by a softmax over the whole catalogue. Shapes: N = predictions, D = width, I = rows of the item table."""

from typing import Literal

import torch
from torch import Generator, Tensor

from recsys.columns import FIRST_ID
from recsys.heads.linear_cross_entropy import linear_cross_entropy
from recsys.spec import Spec


class FullSoftmax(Spec):
    """Exact cross-entropy; the right choice up to some hundred thousand items.

    Beats one-negative losses clearly: Klenitskiy and Vasilev 2023, https://arxiv.org/abs/2309.07602.
    """

    kind: Literal["full_softmax"] = "full_softmax"

    def candidates(self, target_N: Tensor, train_count_I: Tensor, generator: Generator) -> Tensor:
        """The item rows the loss needs vectors of: all of them."""
        return torch.arange(len(train_count_I), device=target_N.device)

    def __call__(
        self, hidden_ND: Tensor, candidate_ID: Tensor, candidate_I: Tensor, target_N: Tensor, train_count_I: Tensor
    ) -> Tensor:
        """Return loss_N."""
        return linear_cross_entropy(hidden_ND, candidate_ID, target_N, first_item=FIRST_ID)
