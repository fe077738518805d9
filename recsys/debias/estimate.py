"""What a debiasing technique is given and what it answers.

Shapes: B = examples, P = pairs drawn evenly, T = tasks, V = width of a row's vectors side by side.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """The batch's users and contexts with items drawn uniformly from the catalogue, in the log or not: what nobody chose."""

    logit_PT: Tensor  # with a gradient
    vector_PV: Tensor  # detached: user, item and their features, side by side


@dataclass(frozen=True)
class Rows:
    """A batch of the log. `propensity_B`: chance of the row to be in the log, at least `floor`; NaN for a technique that asked
    for none. `scale`: by which 1 / propensity is multiplied, as the spec's `scale` has it from all training rows."""

    logit_BT: Tensor  # with a gradient
    label_BT: Tensor  # NaN: does not exist
    loss_BT: Tensor  # with a gradient, 0 where the label does not exist
    vector_BV: Tensor  # detached
    propensity_B: Tensor
    step: int
    arm_B: Tensor | None = None  # the label that the spec's `arm` names
    pairs: Pairs | None = None  # where the spec's `reads_pairs` asks for them
    scale: float = 1.0
    floor: float = 0.0

    @property
    def inverse_B(self) -> Tensor:
        """scale / propensity."""
        return self.scale / self.propensity_B


@dataclass(frozen=True)
class Estimate:
    """The loss over all pairs, from the rows at hand: (sum over the rows of weight * loss) + (sum over the pairs of loss_PT *
    B / P), divided by the number of rows. `own`: what the technique's own parameters minimise, reaching no others."""

    loss_BT: Tensor  # with a gradient
    weight_BT: Tensor  # detached, at least 0
    loss_PT: Tensor | None = None  # with a gradient
    own: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)  # to log


def effective_share(weight_B: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 as a share of the rows: how many rows of equal weight would tell as much."""
    return weight_B.sum() ** 2 / (weight_B**2).sum().clamp(min=torch.finfo(weight_B.dtype).tiny) / max(1, len(weight_B))


def clipped_share(rows: Rows) -> Tensor:
    """Share of the rows whose propensity was below the floor."""
    return (rows.propensity_B <= rows.floor * (1 + 1e-6)).float().mean()
