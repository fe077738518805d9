"""What the parts of the ranker hand on to each other.

Shapes: B = examples or requests, C = candidates of each (one in training), F = fields, D = width of a field, L = history.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recsys.spec import Spec


@dataclass(frozen=True)
class RankerInputs:
    """What a way of sharing may read. The history has no axis of candidates, so that it is read once for all of them."""

    field_BCFD: Tensor  # every feature's vector, the history's, and the product of item and history: normalised, crossed
    item_BCD: Tensor
    history_BLD: Tensor
    inside_BL: Tensor  # False where a column is padding
    behaviour_BL: Tensor | None = None  # bit t set: the event was a positive of task t; None unless `reads_behaviours`


class SharingSpec(Spec):
    """A way to share between tasks. A subclass adds `kind` and `build(fields, dim, tasks)`, whose module maps RankerInputs to
    logit_BCT and lists in `task_parameters()` what the loss of one task alone reaches."""

    reads_behaviours: ClassVar[bool] = False  # then it reads the history event by event too

    def check(self, tasks: Sequence[str], regression: Collection[str] = ()) -> None:
        """Raise ValueError when the settings do not fit the tasks; by default any tasks will do."""


def masked_softmax(score_L: Tensor, inside_L: Tensor) -> Tensor:
    """Softmax over the last axis where `inside_L`, 0 elsewhere and in a row with nothing inside; gradients stay finite."""
    some = inside_L.any(dim=-1, keepdim=True)  # a softmax of nothing but -inf would be NaN
    bias_L = torch.zeros_like(inside_L, dtype=score_L.dtype).masked_fill(some & ~inside_L, -torch.inf)
    return (score_L + bias_L).softmax(dim=-1) * some
