"""A batch and the loaders that gather it from a memory-mapped dataset with vectorised slicing.

Shapes: B = sequences or examples, N = ids of all rows of the batch joined, T = tasks, U = users, X = examples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recsys.columns import ITEM, POSITION, SPLIT, TRAIN, USER, WEIGHT, context, label
from recsys.dataset import Dataset
from recsys.jagged import Jagged, ranges

BUCKET_BATCHES = 16  # sequences are sorted by length within this many batches, so that little of a batch is padding


@dataclass(frozen=True)
class Ids:
    """Rows of different lengths: row i owns the next `length_B[i]` of `value_N`. Both 64-bit integers."""

    value_N: Tensor
    length_B: Tensor

    def to(self, device: torch.device) -> "Ids":
        return Ids(self.value_N.to(device), self.length_B.to(device))

    def padded(self) -> Tensor:
        """value_BL, zeros on the right, at least one column."""
        longest = max(1, int(self.length_B.max())) if len(self.length_B) else 1
        inside_BL = torch.arange(longest, device=self.length_B.device) < self.length_B[:, None]
        value_BL = self.value_N.new_zeros(inside_BL.shape)
        value_BL[inside_BL] = self.value_N
        return value_BL


@dataclass(frozen=True)
class Batch:
    """Ids by feature name; for examples also labels (NaN: the label does not exist for the row), weights and users."""

    ids: dict[str, Ids]
    label_BT: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    weight_B: Tensor = field(default_factory=lambda: torch.empty(0))

    def to(self, device: torch.device) -> "Batch":
        ids = {name: row.to(device) for name, row in self.ids.items()}
        return Batch(ids, self.label_BT.to(device), self.weight_B.to(device))

    @property
    def num_predictions(self) -> int:
        """What the batch trains: labelled examples, or the events of the sequences."""
        return len(self.label_BT) or len(self.ids["history"].value_N)


@dataclass(frozen=True)
class SequenceLoader:
    """Training windows that together cover every user's training timeline.

    A window has at most `max_history` + 1 events: all are predicted, and all but the last are read, so that a model learns to
    predict from every length of history it is served with.
    The windows' phase, their order and the order of batches follow from (seed, epoch) alone, so a resumed run goes on at the
    exact batch. Rank r of R takes every R-th batch.
    """

    dataset: Dataset
    max_history: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        start_W, length_W = self._windows(epoch)
        for row in self._order(length_W, epoch)[first_batch:]:
            value_N = self.dataset.item_E[ranges(start_W[row], length_W[row])]
            yield Batch({"history": _ids(value_N, length_W[row])})

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank; every rank has the same number."""
        return len(self._order(self._windows(epoch)[1], epoch))

    def _windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """First timeline row and length of every window. A long timeline is cut at a random phase, anew each epoch."""
        data = self.dataset
        train_E = np.concatenate([[0], np.cumsum(data.split_E == TRAIN)])
        length_U = train_E[data.start_U + data.length_U] - train_E[data.start_U]  # splits follow time: training is a prefix
        size = self.max_history + 1
        phase_U = _rng(self.seed, epoch, 0).integers(0, size, len(length_U))
        phase_U[length_U <= size] = 0
        count_U = -(-(length_U + phase_U) // size) * (length_U > 0)
        user_W = np.repeat(np.arange(len(count_U)), count_U)
        place_W = ranges(np.zeros_like(count_U), count_U) * size - phase_U[user_W]
        begin_W = np.maximum(place_W, 0)
        end_W = np.minimum(place_W + size, length_U[user_W])
        return data.start_U[user_W] + begin_W, end_W - begin_W

    def _order(self, length_W: np.ndarray, epoch: int) -> list[np.ndarray]:
        rng = _rng(self.seed, epoch, 1)
        shuffled_W = rng.permutation(len(length_W))
        bucket = self.batch_size * BUCKET_BATCHES
        batches = []
        for begin in range(0, len(shuffled_W), bucket):
            part = shuffled_W[begin : begin + bucket]
            part = part[np.argsort(length_W[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        mine = [batches[i] for i in rng.permutation(len(batches))]
        return mine[self.rank : len(mine) - len(mine) % self.world_size : self.world_size]


class ExampleLoader:
    """Examples of one split with every feature the ranker reads: ids, attributes and the history before the position."""

    def __init__(
        self, dataset: Dataset, *, tasks: Sequence[str], split: int, max_history: int, batch_size: int, seed: int,
        rank: int = 0, world_size: int = 1,
    ):  # fmt: skip
        self.dataset, self.tasks, self.max_history, self.batch_size, self.seed = (
            dataset,
            list(tasks),
            max_history,
            batch_size,
            seed,
        )
        self.rank, self.world_size = rank, world_size
        self.row_X = np.flatnonzero(dataset.examples[SPLIT] == split)
        attributes = [f for f in dataset.features if f["owner"] != "context"]
        self._codes: dict[str, tuple[str, Jagged]] = {
            f["name"]: (f["owner"], dataset.codes(f["name"], f["owner"])) for f in attributes
        }

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Shuffled batches of this rank."""
        order_X = _rng(self.seed, epoch, 2).permutation(self.row_X)
        for index in range(first_batch, self.num_batches(epoch)):
            begin = (index * self.world_size + self.rank) * self.batch_size
            yield self.batch(order_X[begin : begin + self.batch_size])

    def in_order(self) -> Iterator[Batch]:
        """All examples of the split, for evaluation."""
        for begin in range(0, len(self.row_X), self.batch_size):
            yield self.batch(self.row_X[begin : begin + self.batch_size])

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank; a remainder that cannot be shared among all ranks waits for another epoch's shuffle."""
        if self.world_size == 1:
            return -(-len(self.row_X) // self.batch_size)
        return len(self.row_X) // (self.batch_size * self.world_size)

    def batch(self, row_B: np.ndarray) -> Batch:
        data, examples = self.dataset, self.dataset.examples
        user_B, item_B, position_B = (examples[name][row_B].astype(np.int64) for name in (USER, ITEM, POSITION))
        length_B = np.minimum(position_B, self.max_history)
        history_N = data.item_E[ranges(data.start_U[user_B] + position_B - length_B, length_B)]
        ones_B = np.ones_like(user_B)
        ids = {"user": _ids(user_B, ones_B), "item": _ids(item_B, ones_B), "history": _ids(history_N, length_B)}
        for name, (owner, codes) in self._codes.items():
            taken = codes.take(user_B if owner == "user" else item_B)
            ids[name] = _ids(taken.item_E, taken.lengths)
        for name in data.context:
            ids[name] = _ids(examples[context(name)][row_B], ones_B)
        labels_BT = np.stack([examples[label(task)][row_B] for task in self.tasks], axis=1)
        return Batch(ids, torch.from_numpy(labels_BT), torch.from_numpy(examples[WEIGHT][row_B]))


def _rng(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch, purpose])


def _ids(value_N: np.ndarray, length_B: np.ndarray) -> Ids:
    return Ids(torch.from_numpy(value_N.astype(np.int64)), torch.from_numpy(length_B.astype(np.int64)))
