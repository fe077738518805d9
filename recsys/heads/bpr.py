"""Next item above each negative. Shapes: N = predictions, S = negatives shared by the batch."""

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class BPR(Spec):
    """Bayesian personalised ranking, Rendle et al. 2009, https://arxiv.org/abs/1205.2618: -log sigmoid(positive - negative).

    Differs from the paper: several negatives, shared by the batch, whose mean is taken; no weight decay in the loss.
    """

    kind: Literal["bpr"] = "bpr"
    sampled: ClassVar[bool] = True

    def __call__(
        self, positive_N: Tensor, negative_NS: Tensor, log_expected_N: Tensor, log_expected_S: Tensor, num_items: int
    ) -> Tensor:
        """Return loss_N, 0 where every negative is the target. Hits in `negative_NS` are -inf (`mask_hits`)."""
        count_N = negative_NS.isfinite().sum(1)
        return functional.softplus(negative_NS - positive_N[:, None]).sum(1) / count_N.clamp(min=1)
