"""A batch of sequences or examples as tensors.

Shapes: B = sequences or examples, N = ids of all rows of the batch joined, T = tasks, F = dense features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ids:
    """Rows of different lengths: row i owns the next `length_B[i]` of `value_N`. Both 64-bit integers."""

    value_N: Tensor
    length_B: Tensor

    def to(self, device: torch.device) -> "Ids":
        return Ids(self.value_N.to(device), self.length_B.to(device))

    def split(self, sizes: Sequence[int]) -> list["Ids"]:
        """Views of the next `sizes[i]` rows each."""
        end_B = self.length_B.cumsum(0)
        ends = [0, *(int(end_B[end - 1]) if end else 0 for end in accumulate(sizes))]
        values = self.value_N.split([end - begin for begin, end in pairwise(ends)])
        return [Ids(*pair) for pair in zip(values, self.length_B.split(list(sizes)), strict=True)]

    def padded(self) -> Tensor:
        """value_BL, zeros on the right, at least one column."""
        longest = max(1, int(self.length_B.max())) if len(self.length_B) else 1
        inside_BL = torch.arange(longest, device=self.length_B.device) < self.length_B[:, None]
        value_BL = self.value_N.new_zeros(inside_BL.shape)
        value_BL[inside_BL] = self.value_N
        return value_BL


@dataclass(frozen=True)
class Batch:
    """Ids by feature name; for examples also labels (NaN: the label does not exist for the row), weights and numbers."""

    ids: dict[str, Ids]
    label_BT: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    weight_B: Tensor = field(default_factory=lambda: torch.empty(0))
    dense_BF: Tensor = field(default_factory=lambda: torch.empty(0, 0))  # point-in-time features
    time_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # milliseconds of a sequence's events
    behaviour_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # masks of the events of `history`
    target_N: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))  # which events are predicted; none: all
    propensity_B: Tensor = field(default_factory=lambda: torch.empty(0))  # chance of the row to be in the log
    arm_B: Tensor = field(default_factory=lambda: torch.empty(0))  # label that says the arm of an experiment

    def to(self, device: torch.device) -> "Batch":
        ids = {name: row.to(device) for name, row in self.ids.items()}
        return Batch(ids, **{name: part.to(device) for name, part in self._tensors.items()})

    def split(self, sizes: Sequence[int]) -> list["Batch"]:
        """Views of the next `sizes[i]` rows each."""
        names, rows = list(self.ids), zip(*(row.split(sizes) for row in self.ids.values()), strict=True)
        parts = [dict(zip(names, ids, strict=True)) for ids in rows]
        events = [len(ids["history"].value_N) for ids in parts]
        of_events = ("time_N", "behaviour_N", "target_N")
        cut = {name: _cut(part, events if name in of_events else sizes) for name, part in self._tensors.items()}
        return [Batch(ids, **{name: pieces[i] for name, pieces in cut.items()}) for i, ids in enumerate(parts)]

    @property
    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def rows(self) -> int:
        """Sequences or examples."""
        return len(self.ids["history"].length_B)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, for a file of them."""
        ids = {f"{part}/{name}": value for name, row in self.ids.items() for part, value in vars(row).items()}
        rest = {name: value for name, value in self._tensors.items() if value.numel()}
        whole = {**ids, **rest}  # copies: rows of one value each share their lengths, which a file of tensors does not bear
        return {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in whole.items()}

    @property
    def predicted_N(self) -> Tensor:
        """1 for every event of the sequences that is predicted, 0 for one that is only read."""
        events = self.ids["history"].value_N
        return self.target_N.float() if len(self.target_N) else torch.ones_like(events, dtype=torch.float32)

    @property
    def num_predictions(self) -> int:
        """What the batch trains: labelled examples, or the events of the sequences that are predicted."""
        return len(self.label_BT) or int(self.target_N.sum() if len(self.target_N) else len(self.ids["history"].value_N))


def _cut(rows: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Views of the next `sizes[i]` rows each; a field that the batch does not have stays empty."""
    return rows.split(list(sizes)) if len(rows) else [rows] * len(sizes)
