"""What the tables are asked for an item: its own row and its features'. Shapes: I = rows of the item table, C = items."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recsys.batch import Ids
from recsys.jagged import Jagged

ITEM = "item"


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """`known_I`: items that training has, whose own vector says something. `features`: a feature's codes of every item."""

    known_I: Tensor
    features: Mapping[str, Ids]

    @classmethod
    def make(cls, train_count_I: np.ndarray, features: Mapping[str, Jagged], device: torch.device) -> "ItemCodes":
        known_I = torch.from_numpy(np.asarray(train_count_I) > 0).to(device)
        return cls(known_I, {name: _ids(codes).to(device) for name, codes in features.items()})

    @property
    def num_items(self) -> int:
        return len(self.known_I)

    def is_known(self, item_C: Tensor | None) -> Tensor:
        return self.known_I if item_C is None else self.known_I[item_C]

    def all(self) -> dict[str, Ids]:
        """The look-ups of every row of the item table."""
        return self._all

    def of(self, item_C: Tensor) -> dict[str, Ids]:
        """The look-ups of these items, in their order."""
        return {ITEM: _one_each(item_C)} | {name: _take(codes, item_C) for name, codes in self.features.items()}

    @cached_property
    def _all(self) -> dict[str, Ids]:
        return {ITEM: _one_each(torch.arange(self.num_items, device=self.known_I.device)), **self.features}


def _one_each(item_C: Tensor) -> Ids:
    return Ids(item_C, torch.ones_like(item_C))


def _take(codes: Ids, row_C: Tensor) -> Ids:
    """The codes of these rows."""
    start_I = codes.length_B.cumsum(0) - codes.length_B
    length_C = codes.length_B[row_C]
    within = torch.arange(int(length_C.sum()), device=row_C.device) - torch.repeat_interleave(
        length_C.cumsum(0) - length_C, length_C
    )
    return Ids(codes.value_N[torch.repeat_interleave(start_I[row_C], length_C) + within], length_C)


def _ids(codes: Jagged) -> Ids:
    return Ids(torch.from_numpy(codes.item_E.astype(np.int64)), torch.from_numpy(codes.lengths.astype(np.int64)))
