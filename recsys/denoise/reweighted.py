"""Reweighted loss: trust an example as far as the model finds it plausible. Shapes: B = examples in the batch."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.denoise.denoiser import DenoiserSpec
from recsys.weighing import Context


class Reweighted(DenoiserSpec):
    """Weigh each example by the probability the model gives its label, to the power `exponent`.

    R-CE, Wang et al. 2021, https://arxiv.org/abs/2006.04153. The probability is exp(-loss), which is the paper's for binary
    cross-entropy and carries over to any loss that is a negative log-likelihood, such as a softmax over items. Differs from the
    released code, which divides by the number of examples: here the weights' mean is taken out, so that an exponent does not
    lower the learning rate.
    """

    kind: Literal["reweighted"] = "reweighted"
    exponent: float = Field(0.2, ge=0, le=5, description="0: all alike; larger: less trust in what looks implausible")

    @classmethod
    def neutral(cls) -> "Reweighted":
        return cls(exponent=0)

    def __call__(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """Return weight_B in (0, 1]."""
        return torch.exp(-self.exponent * loss_B.detach()).clamp(min=1e-6)  # a batch of hopeless examples keeps a sum
