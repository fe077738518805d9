"""Next item by a softmax over sampled items, for catalogues too large to score whole.

Shapes: N = predictions, S = negatives shared by the batch.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class SampledSoftmax(Spec):
    """Sampled softmax with logQ correction, Bengio and Senecal 2008; for retrieval Yi et al. 2019, https://doi.org/10.1145/3298689.3346996.

    A negative's logit loses the log of how often the item is expected among the negatives, so that a sum over the draws
    estimates the sum over all items but the target; with more draws, loss and gradient become those of the full softmax,
    whatever the distribution. The target stands in the sum once, always: it was not drawn (draws that hit it are masked), so
    there is nothing to correct, Khrylchenko et al. 2025, https://arxiv.org/abs/2507.09331.
    Differs from Yi et al., who take the target's own log probability off its logit as well, as if it were in its set by
    chance: `correct_target` does so. The loss is then no estimate of the full softmax; a rare target counts in its own sum
    for much more than once, which weakens what it can learn.
    """

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    sampled: ClassVar[bool] = True
    correct_target: bool = Field(False, description="take the log expected count off the target's logit too")

    def __call__(
        self, positive_N: Tensor, negative_NS: Tensor, log_expected_N: Tensor, log_expected_S: Tensor, num_items: int
    ) -> Tensor:
        """Return loss_N. Hits in `negative_NS` are -inf (`mask_hits`)."""
        if self.correct_target:
            positive_N = positive_N - log_expected_N
        return functional.softplus(torch.logsumexp(negative_NS - log_expected_S, dim=1) - positive_N)
