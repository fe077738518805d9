"""A history partly in another order as its view. Shapes: B = histories, N = events of all of them."""

from typing import Literal, Self

import torch
from pydantic import Field
from torch import Generator

from recsys.augment.view import Histories, HistoryViewSpec, View, part_of, rows, starts, unchanged, uniform


class Reorder(HistoryViewSpec):
    """Events that stand together are shuffled. The times stay where they were, in ascending order.

    CL4SRec, Xie et al. 2022, https://arxiv.org/abs/2010.14395.
    """

    kind: Literal["reorder"] = "reorder"
    share: float = Field(0.3, ge=0, le=1, description="of the events are shuffled")

    def __call__(self, histories: Histories, generator: Generator) -> View:
        length_B = histories.events.length_B
        count_B = part_of(length_B, self.share)
        row_N, start_B = rows(length_B), starts(length_B)
        first_B = start_B + (uniform(length_B, generator) * (length_B - count_B + 1)).long()
        place_N = torch.arange(len(row_N), device=row_N.device)
        first_N, count_N = first_B[row_N], count_B[row_N]
        moves_N = (place_N >= first_N) & (place_N < first_N + count_N)
        drawn_N = first_N + uniform(row_N, generator) * count_N  # of those that move, within their own part of the row
        order_N = torch.where(moves_N, drawn_N, place_N.double()).argsort(stable=True)
        return unchanged(histories, histories.events.value_N[order_N])

    @classmethod
    def neutral(cls) -> Self:
        return cls(share=0)
