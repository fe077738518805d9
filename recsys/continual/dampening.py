"""Selective synaptic dampening: shrink the parameters that matter far more to what is to be forgotten than to the rest.

Shapes: P = numbers of one parameter, of any shape.
"""

from collections.abc import Iterable, Mapping

import torch
from pydantic import Field
from torch import Tensor

from recsys.spec import Spec


class Dampening(Spec):
    """Multiply a number by min(strength * I_D / I_F, 1) where I_F > alpha * I_D, and leave all others alone.

    I_F and I_D are the importances (see `importance`) for the examples to forget and for all training examples. There is no
    training. SSD, Foster et al. 2024, https://arxiv.org/abs/2308.07707, with the defaults of its code. Differs from the paper:
    nothing here; the rows of a table that belong to the forgotten user alone are deleted by the caller, not dampened.
    """

    alpha: float = Field(10.0, gt=0, description="how many times more a number must matter to the forgotten to be dampened")
    strength: float = Field(1.0, gt=0, description="lambda of the paper: smaller dampens more")

    def __call__(self, value_P: Tensor, of_all_P: Tensor, of_forgotten_P: Tensor) -> Tensor:
        """The dampened numbers. What matters to neither is left alone."""
        chosen_P = of_forgotten_P > self.alpha * of_all_P
        share_P = (self.strength * of_all_P / of_forgotten_P.clamp(min=torch.finfo(value_P.dtype).tiny)).clamp(max=1)
        return torch.where(chosen_P, value_P * share_P, value_P)


def importance(gradients: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each parameter's mean square of its gradient over batches: the diagonal of the Fisher information, empirical.

    As in the paper's code the gradient is that of a batch's mean loss, so that the result depends on the size of a batch: both
    importances need batches of the same size. An empty iterable gives none.
    """
    total: dict[str, Tensor] = {}
    batches = 0
    for batches, gradient in enumerate(gradients, 1):  # noqa: B007 the count is read below
        for name, value in gradient.items():
            total[name] = total[name] + value.square() if name in total else value.square()
    return {name: value / batches for name, value in total.items()}
