"""Next item by a softmax over the whole catalogue. Shapes: N = predictions, D = width, I = rows of the item table."""

from typing import ClassVar, Literal

from torch import Tensor

from recsys.columns import FIRST_ID
from recsys.heads.linear_cross_entropy import linear_cross_entropy
from recsys.spec import Spec


class FullSoftmax(Spec):
    """Exact cross-entropy; the right choice up to some hundred thousand items.

    Beats one-negative losses clearly: Klenitskiy and Vasilev 2023, https://arxiv.org/abs/2309.07602.
    """

    kind: Literal["full_softmax"] = "full_softmax"
    sampled: ClassVar[bool] = False

    def __call__(self, hidden_ND: Tensor, table_ID: Tensor, target_N: Tensor, *, even: bool = True) -> Tensor:
        """Return loss_N. `even`: all of them will weigh the same, which saves a quarter of the arithmetic."""
        return linear_cross_entropy(hidden_ND, table_ID, target_N, first_item=FIRST_ID, even=even)
