"""A history with holes as its view. Shapes: B = histories, N = events of all of them."""

from typing import Literal, Self

import torch
from pydantic import Field
from torch import Generator

from recsys.augment.view import Histories, HistoryViewSpec, View, part_of, some_of_each, unchanged
from recsys.columns import UNKNOWN_ID


class Mask(HistoryViewSpec):
    """Random events become the unknown item, whose vector is that of the mask.

    CL4SRec, Xie et al. 2022, https://arxiv.org/abs/2010.14395. Differs from the paper: at least one event stays, and the mask
    has no vector of its own, so that the model learns what an unknown item in a history means, too.
    """

    kind: Literal["mask"] = "mask"
    share: float = Field(0.3, ge=0, lt=1, description="of the events are masked")

    def __call__(self, histories: Histories, generator: Generator) -> View:
        events = histories.events
        count_B = torch.minimum(part_of(events.length_B, self.share), (events.length_B - 1).clamp(min=0))
        masked_N = some_of_each(events.length_B, count_B, generator)
        return unchanged(histories, events.value_N.masked_fill(masked_N, UNKNOWN_ID))

    @classmethod
    def neutral(cls) -> Self:
        return cls(share=0)
