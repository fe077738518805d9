"""The history as the mean of its items. Shapes: B = examples or requests, C = candidates, L = history, D = width."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from recsys.spec import Spec


class MeanHistory(Spec):
    """The mean vector of the history's items, the same for every candidate: the cheapest reader, which training takes as a
    pooled look-up. Covington et al. 2016, https://doi.org/10.1145/2959100.2959190."""

    kind: Literal["mean"] = "mean"
    reads_sequence: ClassVar[bool] = False  # the mean alone is enough

    def build(self, dim: int) -> nn.Module:
        return _MeanHistory()


class _MeanHistory(nn.Module):
    def forward(self, item_BCD: Tensor, history_BLD: Tensor, inside_BL: Tensor) -> Tensor:
        """Return history_B1D; zeros for an empty history."""
        total_BD = (history_BLD * inside_BL[..., None]).sum(1)
        return (total_BD / inside_BL.sum(1, keepdim=True).clamp(min=1))[:, None]
