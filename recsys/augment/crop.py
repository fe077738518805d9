"""A history's own part as its view. Shapes: B = histories, N = events of all of them."""

from typing import Literal, Self

import torch
from pydantic import Field
from torch import Generator

from recsys.augment.view import Histories, HistoryViewSpec, View, part_of, ranges, starts, uniform
from recsys.batch import Ids


class Crop(HistoryViewSpec):
    """Events that stand together, from a random place on.

    CL4SRec, Xie et al. 2022, https://arxiv.org/abs/2010.14395. Differs from the paper: at least one event is kept.
    """

    kind: Literal["crop"] = "crop"
    share: float = Field(0.6, gt=0, le=1, description="of the events are kept")

    def __call__(self, histories: Histories, generator: Generator) -> View:
        events = histories.events
        kept_B = torch.maximum(part_of(events.length_B, self.share), events.length_B.clamp(max=1))
        first_B = (uniform(kept_B, generator) * (events.length_B - kept_B + 1)).long()
        place_N = ranges(starts(events.length_B) + first_B, kept_B)
        return View(Ids(events.value_N[place_N], kept_B), first_B)

    @classmethod
    def neutral(cls) -> Self:
        return cls(share=1)
