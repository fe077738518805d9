"""What a technique that weighs examples may look at beside their losses and labels. Shapes: B = examples or events."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Context:
    """The present step. Random numbers follow from `seed`, so that a second call of the step gives the same weights.

    `again(k)` is one more forward pass: loss_B with other dropout, another one for each k, without a gradient.
    `slope(weight_B)` is what a small step against the gradient of sum(weight * loss) takes off each example's loss, per unit
    of the step's size: slope_B = <grad loss_b, grad sum(weight * loss)>.
    """

    step: int
    group_B: Tensor  # examples of one user share a number, and stand together where the spec's `together` asks for it
    seed: int
    again: Callable[[int], Tensor]
    slope: Callable[[Tensor], Tensor]

    def generator(self) -> Generator:
        """A CPU generator at the start of this step's random numbers."""
        return Generator().manual_seed(self.seed)


def alone(loss_B: Tensor, *, step: int, group_B: Tensor | None = None, seed: int = 0) -> Context:
    """A context without a model behind it: every pass gives the same losses, and no example helps another."""
    return Context(
        step=step,
        group_B=torch.arange(len(loss_B), device=loss_B.device) if group_B is None else group_B,
        seed=seed,
        again=lambda _: loss_B.detach(),
        slope=lambda _: torch.zeros_like(loss_B.detach()),
    )
