"""Next item above each negative. Shapes: N = predictions, S = negatives, shared by the batch or of a row's own."""

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class BPR(Spec):
    """Bayesian personalised ranking, Rendle et al. 2009, https://arxiv.org/abs/1205.2618: -log sigmoid(positive - negative).

    Differs from the paper: several negatives, whose mean is taken; no weight decay in the loss.
    """

    kind: Literal["bpr"] = "bpr"
    sampled: ClassVar[bool] = True

    def __call__(
        self, positive_N: Tensor, negative_NS: Tensor, log_expected_N: Tensor, log_expected_S: Tensor, num_items: int,
        weight_NS: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return loss_N, 0 where every negative is the target. Hits in `negative_NS` are -inf (`mask_hits`)."""
        return weighted(functional.softplus(negative_NS - positive_N[:, None]), negative_NS, weight_NS)


def weighted(pair_NS: Tensor, negative_NS: Tensor, weight_NS: Tensor | None) -> Tensor:
    """loss_N: the row's sum of pairs, each times its weight, over the number of pairs. A negative of -inf makes no pair.

    Divided by their number and not by the sum of weights: a row whose negatives all weigh more counts for more.
    """
    count_N = negative_NS.isfinite().sum(1)
    return (pair_NS if weight_NS is None else pair_NS * weight_NS).sum(1) / count_N.clamp(min=1)
