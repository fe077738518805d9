"""Next item by yes-or-no questions, calibrated for the negatives left out.

Shapes: N = predictions, S = negatives shared by the batch.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class GBCE(Spec):
    """Generalised binary cross-entropy of gSASRec, Petrov and Macdonald 2023, https://arxiv.org/abs/2308.07192.

    With k negatives of the n - 1 there are, alpha = k / (n - 1) and beta = alpha * (t * (1 - 1/alpha) + 1/alpha), that is
    1 - t * (1 - alpha); loss = -(log sigmoid(positive) ^ beta + sum log(1 - sigmoid(negative))) / (k + 1). t = 0 is the plain
    binary cross-entropy, whose probabilities come out too high since most negatives are missing; t = 1 calibrates them fully.
    Differs from the paper: negatives are shared by the batch and k counts those that are not the row's own target; drawn with
    replacement they can be more than the catalogue holds, alpha is then 1. The calibration supposes uniform negatives.
    """

    kind: Literal["gbce"] = "gbce"
    sampled: ClassVar[bool] = True
    t: float = Field(0.75, ge=0, le=1, description="calibration: 0 none, 1 full; the paper recommends 0.75")

    def __call__(
        self, positive_N: Tensor, negative_NS: Tensor, log_expected_N: Tensor, log_expected_S: Tensor, num_items: int
    ) -> Tensor:
        """Return loss_N. `num_items`: real items. Hits in `negative_NS` are -inf (`mask_hits`); no logQ correction."""
        count_N = negative_NS.isfinite().sum(1)
        alpha_N = (count_N / max(1, num_items - 1)).clamp(max=1)
        beta_N = 1 - self.t * (1 - alpha_N)
        yes_N, no_N = functional.softplus(-positive_N), functional.softplus(negative_NS).sum(1)
        return (beta_N * yes_N + no_N) / (count_N + 1)
