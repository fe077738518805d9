"""The weighted sum of the tasks' losses. Shapes: T = tasks."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Generator, Tensor, nn

from recsys.balance.gradients import Losses, backward, loss_terms, weigh
from recsys.spec import Spec


class Fixed(Spec):
    """One backward pass of the sum of the losses times the weights of the tasks: the baseline, and the cheapest."""

    kind: Literal["fixed"] = "fixed"

    def build(self, weights: Mapping[str, float]) -> nn.Module:
        return _Fixed(weights)


class _Fixed(nn.Module):
    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        self.weights = dict(weights)

    def forward(
        self, losses: Losses, shared: Sequence[Tensor], own: Sequence[Tensor], generator: Generator
    ) -> dict[str, Tensor]:
        loss_T = losses()
        total = weigh(loss_T, self.weights).sum()
        backward(total, [*shared, *own])
        return loss_terms(total, loss_T, list(self.weights))
