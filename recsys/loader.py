"""Loaders: batches gathered from a memory-mapped dataset with vectorised slicing.

The order of batches follows from (seed, epoch) alone, so a resumed run goes on at the exact batch. Rank r of R takes every R-th
batch. Shapes: B = sequences or examples, N = ids of all rows of the batch joined, T = tasks, F = dense features, U = users,
X = examples, W = windows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from recsys.batch import Batch, Ids
from recsys.columns import ITEM, POSITION, USER, WEIGHT, asof, context, feature, label
from recsys.dataset import Dataset
from recsys.jagged import Jagged, gather, ranges
from recsys.prefetch import prefetch

BUCKET_BATCHES = 16  # rows are sorted by length within this many batches, so that little of a batch is padding
GATHERED_ROWS = 1 << 13  # small batches are gathered together, up to this many rows, and then cut


class Loader(Protocol):
    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]: ...
    def num_batches(self, epoch: int) -> int: ...


@dataclass(frozen=True)
class Prefetched:
    """A loader whose next batches are made in a thread while the model works on this one."""

    loader: Loader
    depth: int = 2

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        return prefetch(self.loader.epoch(epoch, first_batch), self.depth)

    def num_batches(self, epoch: int) -> int:
        return self.loader.num_batches(epoch)


@dataclass(frozen=True)
class SequenceLoader:
    """Training windows that together cover every user's training timeline.

    A window has at most `max_history` + 1 events: all are predicted, and all but the last are read, so that a model learns to
    predict from every length of history it is served with. The windows' phase is another one in each epoch.
    """

    dataset: Dataset
    max_history: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        start_W, length_W = self._windows(epoch)
        for rows in _together(self._order(length_W, epoch)[first_batch:], self.batch_size):
            row_B = np.concatenate(rows)
            history = _ids(gather(self.dataset.item_E, start_W[row_B], length_W[row_B]), length_W[row_B])
            yield from (Batch({"history": part}) for part in history.split([len(row) for row in rows]))

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank; every rank has the same number."""
        return -(-int(self._counts(epoch)[0].sum()) // self.batch_size) // self.world_size

    def _counts(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """How many windows each user has, and the phase at which a long timeline is cut."""
        length_U, size = self.dataset.train_length_U, self.max_history + 1
        phase_U = _rng(self.seed, epoch, 0).integers(0, size, len(length_U))
        phase_U[length_U <= size] = 0
        return -(-(length_U + phase_U) // size) * (length_U > 0), phase_U

    def _windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """First timeline row and length of every window."""
        size, (count_U, phase_U) = self.max_history + 1, self._counts(epoch)
        user_W = np.repeat(np.arange(len(count_U)), count_U)
        place_W = ranges(np.zeros_like(count_U), count_U) * size - phase_U[user_W]
        begin_W = np.maximum(place_W, 0)
        end_W = np.minimum(place_W + size, self.dataset.train_length_U[user_W])
        return self.dataset.start_U[user_W] + begin_W, end_W - begin_W

    def _order(self, length_W: np.ndarray, epoch: int) -> list[np.ndarray]:
        rng = _rng(self.seed, epoch, 1)
        shuffled_W = rng.permutation(len(length_W))
        bucket = self.batch_size * BUCKET_BATCHES
        batches = []
        for begin in range(0, len(shuffled_W), bucket):
            part = shuffled_W[begin : begin + bucket]
            batches += _cut_by_length(part, length_W[part], self.batch_size)
        mine = [batches[i] for i in rng.permutation(len(batches))]
        return mine[self.rank : len(mine) - len(mine) % self.world_size : self.world_size]


class ExampleLoader:
    """Examples of one split with every feature the ranker reads: ids, attributes and the history before the position.

    With `bucket_by_length` the examples of a batch have histories of similar length: those of `BUCKET_BATCHES` batches are
    sorted by it, and these batches come in random order.
    """

    def __init__(
        self, dataset: Dataset, *, tasks: Sequence[str], split: int, max_history: int, batch_size: int, seed: int,
        rank: int = 0, world_size: int = 1, bucket_by_length: bool = False,
    ):  # fmt: skip
        self.dataset, self.tasks, self.max_history, self.batch_size = dataset, list(tasks), max_history, batch_size
        self.seed, self.rank, self.world_size, self.bucket_by_length = seed, rank, world_size, bucket_by_length
        self.row_X = dataset.example_rows(split)
        self._asof = dataset.asof
        self._codes: dict[str, tuple[str, Jagged]] = {}  # features with several values
        self._code: dict[str, tuple[str, np.ndarray]] = {}  # and with one
        for owner, name, several in ((f["owner"], f["name"], f["multi_valued"]) for f in dataset.features):
            if owner == "context" or name in self._asof:
                continue
            if several:
                self._codes[name] = owner, dataset.codes(name, owner)
            else:
                self._code[name] = owner, dataset.codes(name, owner).item_E

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Shuffled batches of this rank."""
        return self._gathered(self._mine(epoch, first_batch))

    def in_order(self) -> Iterator[Batch]:
        """All examples of the split, for evaluation."""
        return self._gathered(_cut(self.row_X, self.batch_size))

    def num_batches(self, epoch: int) -> int:
        """Batches of this rank; a remainder that cannot be shared among all ranks waits for another epoch's shuffle."""
        if self.world_size == 1:
            return -(-len(self.row_X) // self.batch_size)
        return len(self.row_X) // (self.batch_size * self.world_size)

    def batch(self, row_B: np.ndarray) -> Batch:
        """The examples asked for."""
        data = self.dataset
        order_B = np.argsort(row_B)  # a file is read from front to back
        sorted_B, place_B = row_B[order_B], np.empty_like(order_B)
        place_B[order_B] = np.arange(len(row_B))

        def column(name: str) -> np.ndarray:
            return data.examples[name][sorted_B][place_B]

        def columns(names: list[str]) -> torch.Tensor:
            return torch.from_numpy(np.stack([column(name) for name in names], axis=1, dtype=np.float32))

        user_B, item_B, position_B = (column(name).astype(np.int64) for name in (USER, ITEM, POSITION))
        length_B = np.minimum(position_B, self.max_history)
        history_N = gather(data.item_E, data.start_U[user_B] + position_B - length_B, length_B)
        one_B = torch.ones(len(row_B), dtype=torch.int64)
        single = {"user": user_B, "item": item_B}
        single |= {name: code[user_B if owner == "user" else item_B] for name, (owner, code) in self._code.items()}
        single |= {name: column(asof(name)) for name in self._asof} | {name: column(context(name)) for name in data.context}
        ids = {name: Ids(_int64(value_B), one_B) for name, value_B in single.items()}
        ids["history"] = _ids(history_N, length_B)
        for name, (owner, codes) in self._codes.items():
            taken = codes.take(user_B if owner == "user" else item_B)
            ids[name] = _ids(taken.item_E, taken.lengths)
        label_BT = columns([label(task) for task in self.tasks])
        dense_BF = columns([feature(name) for name in data.dense]) if data.dense else torch.empty(len(row_B), 0)
        return Batch(ids, label_BT, torch.from_numpy(column(WEIGHT)), dense_BF)

    def _mine(self, epoch: int, first_batch: int) -> Iterator[np.ndarray]:
        """The rows of each batch of this rank."""
        order_X = _rng(self.seed, epoch, 2).permutation(self.row_X)
        mine = range(first_batch * self.world_size + self.rank, self.num_batches(epoch) * self.world_size, self.world_size)
        size = BUCKET_BATCHES * self.batch_size
        for bucket in range(mine.start // BUCKET_BATCHES, -(-mine.stop // BUCKET_BATCHES)):
            row_X = order_X[bucket * size : (bucket + 1) * size]
            batches = self._by_length(row_X, epoch, bucket) if self.bucket_by_length else _cut(row_X, self.batch_size)
            yield from (rows for index, rows in enumerate(batches, bucket * BUCKET_BATCHES) if index in mine)

    def _by_length(self, row_X: np.ndarray, epoch: int, bucket: int) -> list[np.ndarray]:
        """Whole batches of similar length in random order, then the rest, which is any rows and not shared among ranks."""
        whole_X, rest_X = np.split(row_X, [len(row_X) - len(row_X) % self.batch_size])
        length_X = np.minimum(self.dataset.examples[POSITION][whole_X], self.max_history)
        batches = _cut_by_length(whole_X, length_X, self.batch_size)
        return [batches[i] for i in _rng(self.seed, epoch, 3, bucket).permutation(len(batches))] + _cut(rest_X, self.batch_size)

    def _gathered(self, batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        for rows in _together(batches, self.batch_size):
            yield from self.batch(np.concatenate(rows)).split([len(row) for row in rows])


def _together(batches: Iterable[np.ndarray], batch_size: int) -> Iterator[list[np.ndarray]]:
    """Runs of batches that are worth one gather."""
    left = iter(batches)
    while run := list(islice(left, max(1, GATHERED_ROWS // batch_size))):
        yield run


def _cut(row_X: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return [row_X[begin : begin + batch_size] for begin in range(0, len(row_X), batch_size)]


def _cut_by_length(row_N: np.ndarray, length_N: np.ndarray, batch_size: int) -> list[np.ndarray]:
    return _cut(row_N[np.argsort(length_N, kind="stable")], batch_size)


def _rng(*purpose: int) -> np.random.Generator:
    return np.random.default_rng(purpose)


def _int64(value_N: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(value_N.astype(np.int64, copy=False))


def _ids(value_N: np.ndarray, length_B: np.ndarray) -> Ids:
    return Ids(_int64(value_N), _int64(length_B))
