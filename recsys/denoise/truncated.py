"""Truncated loss: ignore the positives the model finds least plausible. Shapes: B = examples in the batch."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.denoise.denoiser import DenoiserSpec
from recsys.weighing import Context


class Truncated(DenoiserSpec):
    """Drop the highest-loss positives, at a rate that ramps up to `max_drop_rate`.

    T-CE, Wang et al. 2021, https://arxiv.org/abs/2006.04153. Differs from the released code, whose rate is a share of the whole
    batch although only positives are ranked: here it is a share of the positives, so that it does not depend on their number.
    """

    kind: Literal["truncated"] = "truncated"
    max_drop_rate: float = Field(0.2, ge=0, lt=1, description="share of the positives dropped once the ramp has ended")
    ramp_steps: int = Field(30_000, ge=1, description="training steps over which the rate grows from 0")

    @classmethod
    def neutral(cls) -> "Truncated":
        return cls(max_drop_rate=0)

    def __call__(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """Return weight_B in {0, 1}; negatives (label 0) and missing labels (NaN) are always kept."""
        positive_B = label_B == 1
        rate = self.max_drop_rate * min(1.0, context.step / self.ramp_steps)
        num_dropped = int(rate * int(positive_B.sum()))
        weight_B = torch.ones_like(loss_B, requires_grad=False)
        worst = loss_B.detach().masked_fill(~positive_B, -torch.inf).topk(num_dropped).indices
        weight_B[worst] = 0.0
        return weight_B
