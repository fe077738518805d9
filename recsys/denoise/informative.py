"""Reweighting by loss towards what is still to be learned. Shapes: B = examples in the batch."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.denoise.denoiser import DenoiserSpec
from recsys.weighing import Context

MIN_RANGE = 1e-6


class Informative(DenoiserSpec):
    """Weigh down redundant examples, those with a low loss: for logs with many easy repeats. The opposite of `truncated`, which
    weighs down those with a high loss: for logs with false positives. Only `middle` serves both.

    Dynamic loss-based sample reweighting, Sow et al. 2025, https://arxiv.org/abs/2502.06733. The loss, scaled to h in [-1, 1]
    by the batch's range, is judged by a curve f, and weights are softmax(f / temperature): the answer to max sum(w f) -
    temperature * KL(w || uniform). Differs from the paper: the range is that of this process's examples, with quantiles in
    place of the ends where `clip_share` is above 0, since one outlier would make all others alike; labels that do not exist
    have no part in it.
    """

    kind: Literal["informative"] = "informative"
    against: ClassVar[Literal["noise", "redundancy"]] = "redundancy"
    curve: Literal["upper", "middle", "extremes"] = Field(
        "upper", description="most weight for: the upper half of the losses, the middle, both ends"
    )
    temperature: float = Field(1.0, gt=0, description="higher: nearer to equal weights")
    start_step: int = Field(1000, ge=0, description="training steps with equal weights")
    clip_share: float = Field(0.0, ge=0, lt=0.5, description="share of losses beyond each end of the range")

    @classmethod
    def neutral(cls) -> "Informative":
        return cls(start_step=2**62)

    def __call__(self, loss_B: Tensor, label_B: Tensor, context: Context) -> Tensor:
        """Return weight_B with mean 1 over the labels that exist."""
        exists_B = ~torch.isnan(label_B)
        weight_B = torch.ones_like(loss_B, requires_grad=False)
        if context.step < self.start_step or not exists_B.any():
            return weight_B
        loss_E = loss_B.detach()[exists_B].float()
        low, high = self._range(loss_E)
        height_E = (2 * (loss_E - low) / (high - low).clamp(min=MIN_RANGE) - 1).clamp(-1, 1)
        match self.curve:
            case "upper":
                value_E = (height_E + 1).clamp(max=1)
            case "middle":
                value_E = 1 - height_E**2
            case "extremes":
                value_E = height_E.abs()
        weight_B[exists_B] = (torch.softmax(value_E / self.temperature, dim=0) * len(value_E)).to(weight_B.dtype)
        return weight_B

    def _range(self, loss_E: Tensor) -> tuple[Tensor, Tensor]:
        if not self.clip_share:
            return loss_E.min(), loss_E.max()
        cut = int(self.clip_share * (len(loss_E) - 1))
        sorted_E = loss_E.sort().values
        return sorted_E[cut], sorted_E[len(loss_E) - 1 - cut]
