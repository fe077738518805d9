"""A history with items exchanged for what goes with them as its view. Shapes: B = histories, N = events of all of them."""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Generator

from recsys.augment.view import Histories, HistoryViewSpec, View, part_of, rows, some_of_each, unchanged


class Substitute(HistoryViewSpec):
    """Random events show the item most often seen near theirs (`recsys.augment.similar_items`).

    CoSeRec, Liu et al. 2021, https://arxiv.org/abs/2108.06479. Differs from the paper: correlation is counted on the training
    timelines alone, not mixed with that of the model's vectors; an item that would bring in what is to be predicted stays.
    """

    kind: Literal["substitute"] = "substitute"
    reads_similar: ClassVar[bool] = True
    share: float = Field(0.3, ge=0, le=1, description="of the events are substituted")

    def __call__(self, histories: Histories, generator: Generator) -> View:
        assert histories.similar_I is not None
        events = histories.events
        other_N = histories.similar_I[events.value_N]
        chosen_N = some_of_each(events.length_B, part_of(events.length_B, self.share), generator)
        chosen_N &= other_N != histories.next_B[rows(events.length_B)]
        return unchanged(histories, torch.where(chosen_N, other_N, events.value_N))

    @classmethod
    def neutral(cls) -> Self:
        return cls(share=0)
