"""Loaders: batches gathered from a memory-mapped dataset with vectorised slicing.

The order of batches follows from (seed, epoch) alone, so a resumed run goes on at the exact batch. Rank r of R takes every R-th
batch. Shapes: B = sequences or examples, N = ids of all rows of the batch joined, T = tasks, F = dense features, U = users,
X = examples, W = windows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch

from recsys.batch import Batch, Ids
from recsys.behaviours import behaviours as behaviour_masks
from recsys.columns import ITEM, POSITION, USER, WEIGHT, asof, context, feature, label
from recsys.dataset import Dataset
from recsys.jagged import Jagged, gather, ranges
from recsys.prefetch import prefetch
from recsys.together import Grouped, grouped

BUCKET_BATCHES = 16  # rows are sorted by length within this many batches, so that little of a batch is padding
GATHERED_ROWS = 1 << 13  # small batches are gathered together, up to this many rows, and then cut


class Loader(Protocol):
    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]: ...
    def num_batches(self, epoch: int) -> int: ...


class Windows(NamedTuple):
    """First timeline row and length of every window, and how many of its first events are read and not predicted."""

    start_W: np.ndarray
    length_W: np.ndarray
    lead_W: np.ndarray


class Selection(Protocol):
    """What of the training data an epoch is trained on, where that is not all of it. It follows from the epoch alone."""

    def windows(self, start_U: np.ndarray, length_U: np.ndarray, size: int, epoch: int) -> Windows: ...
    def rows(self, row_X: np.ndarray, epoch: int) -> np.ndarray: ...


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
    A batch has `batch_size` windows of like length or, with `batch_tokens`, as many as fill so many events when padded; every
    process takes every R-th of them. With `validation_too` the validation events are trained on as well. With `selection` an
    epoch has the windows that it chooses.
    """

    dataset: Dataset
    max_history: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    batch_tokens: int | None = None
    validation_too: bool = False
    selection: Selection | None = None

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        start_W, length_W, lead_W = self._windows(epoch)
        mine = [rows[self.rank :: self.world_size] for rows in self._order(length_W, epoch)[first_batch:]]
        for rows in _together(mine, self.batch_size):
            row_B = np.concatenate(rows)
            start_B, length_B = start_W[row_B], length_W[row_B]
            history = ids_of(gather(self.dataset.item_E, start_B, length_B), length_B)
            time_N = _int64(gather(self.dataset.time_ms_E, start_B, length_B))
            lead_B = lead_W[row_B]
            target_N = torch.empty(0, dtype=torch.bool) if self.selection is None else _after_lead(length_B, lead_B)
            yield from Batch({"history": history}, time_N=time_N, target_N=target_N).split([len(row) for row in rows])

    def num_batches(self, epoch: int) -> int:
        """The same on every process."""
        length_W = self._windows(epoch).length_W
        return _num_batches(len(length_W), self.batch_size) if self.batch_tokens is None else len(self._order(length_W, epoch))

    @property
    def _length_U(self) -> np.ndarray:
        return self.dataset.train_length_U + (self.dataset.valid_length_U if self.validation_too else 0)

    def _windows(self, epoch: int) -> Windows:
        start_U, length_U, size = self.dataset.start_U, self._length_U, self.max_history + 1
        if self.selection is not None:
            return self.selection.windows(start_U, length_U, size, epoch)
        return cut_windows(start_U, length_U, size, rng_of(self.seed, epoch, 0))

    def _order(self, length_W: np.ndarray, epoch: int) -> list[np.ndarray]:
        """The windows of every batch, of all processes together."""
        rng = rng_of(self.seed, epoch, 1)
        shuffled_W = rng.permutation(len(length_W))
        ends = batch_ends(len(shuffled_W), self.batch_size)
        batches = []
        for first in range(0, len(ends), BUCKET_BATCHES):
            begin, cut = ends[first - 1] if first else 0, ends[first : first + BUCKET_BATCHES]
            part = shuffled_W[begin : cut[-1]]
            row_W = part[np.argsort(length_W[part], kind="stable")]
            if self.batch_tokens is None:
                batches += np.split(row_W, np.asarray(cut[:-1]) - begin)
            else:
                batches += _filled(row_W, length_W[row_W], self.batch_tokens, self.world_size)
        return [batches[i] for i in rng.permutation(len(batches))]


def cut_windows(start_U: np.ndarray, length_U: np.ndarray, size: int, rng: np.random.Generator) -> Windows:
    """Windows of at most `size` events that together cover the first `length_U` events of every timeline.

    A longer timeline is cut at a phase that is drawn.
    """
    phase_U = rng.integers(0, size, len(length_U))
    phase_U[length_U <= size] = 0
    count_U = -(-(length_U + phase_U) // size) * (length_U > 0)
    user_W = np.repeat(np.arange(len(count_U)), count_U)
    place_W = ranges(np.zeros_like(count_U), count_U) * size - phase_U[user_W]
    begin_W = np.maximum(place_W, 0)
    end_W = np.minimum(place_W + size, length_U[user_W])
    return Windows(start_U[user_W] + begin_W, end_W - begin_W, np.zeros_like(begin_W))


class ExampleLoader:
    """Examples of one split with every feature the ranker reads: ids, attributes and the history before the position.

    With `bucket_by_length` the examples of a batch have histories of similar length: those of `BUCKET_BATCHES` batches are
    sorted by it, and these batches come in random order. With `behaviours` a batch says of every event of a history which of
    `tasks` had label 1 there, as far as that was known at once. `propensity_X`: one for each example of the split, handed on;
    `arm`: a label to hand on beside the tasks'. With `together` = k > 1, k positives of one user stand side by side in a batch
    of one process, as far as there are as many. `dense`: the point-in-time features to read, by default all. With `selection`
    an epoch has the examples that it chooses.
    """

    def __init__(
        self, dataset: Dataset, *, tasks: Sequence[str], split: int, max_history: int, batch_size: int, seed: int,
        rank: int = 0, world_size: int = 1, bucket_by_length: bool = False, behaviours: bool = False,
        propensity_X: np.ndarray | None = None, arm: str | None = None, together: int = 1,
        dense: Sequence[str] | None = None, selection: Selection | None = None,
    ):  # fmt: skip
        assert not (bucket_by_length and together > 1), "rows sorted by length do not stand together by user"
        self.dataset, self.tasks, self.max_history, self.batch_size = dataset, list(tasks), max_history, batch_size
        self.seed, self.rank, self.world_size, self.bucket_by_length = seed, rank, world_size, bucket_by_length
        self.row_X = dataset.example_rows(split)
        self.propensity_X, self.arm, self.together, self.selection = propensity_X, arm, together, selection
        self._behaviour_E = behaviour_masks(dataset, self.tasks) if behaviours else None
        self._asof, self.dense = dataset.asof, list(dataset.dense if dense is None else dense)
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
        """The same on every process."""
        return _num_batches(len(self._rows(epoch)), self.batch_size)

    def _rows(self, epoch: int) -> np.ndarray:
        """The examples of an epoch."""
        return self.row_X if self.selection is None else self.selection.rows(self.row_X, epoch)

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
        start_B = data.start_U[user_B] + position_B - length_B
        history_N = gather(data.item_E, start_B, length_B)
        behaviour_N = np.empty(0, np.int64) if self._behaviour_E is None else gather(self._behaviour_E, start_B, length_B)
        one_B = torch.ones(len(row_B), dtype=torch.int64)
        single = {"user": user_B, "item": item_B}
        single |= {name: code[user_B if owner == "user" else item_B] for name, (owner, code) in self._code.items()}
        single |= {name: column(asof(name)) for name in self._asof} | {name: column(context(name)) for name in data.context}
        ids = {name: Ids(_int64(value_B), one_B) for name, value_B in single.items()}
        ids["history"] = ids_of(history_N, length_B)
        for name, (owner, codes) in self._codes.items():
            taken = codes.take(user_B if owner == "user" else item_B)
            ids[name] = ids_of(taken.item_E, taken.lengths)
        label_BT = columns([label(task) for task in self.tasks])
        dense_BF = columns([feature(name) for name in self.dense]) if self.dense else torch.empty(len(row_B), 0)
        propensity_B = np.empty(0) if self.propensity_X is None else self.propensity_X[np.searchsorted(self.row_X, row_B)]
        arm_B = np.empty(0) if self.arm is None else column(label(self.arm))
        return Batch(
            ids, label_BT, torch.from_numpy(column(WEIGHT)), dense_BF, behaviour_N=torch.from_numpy(behaviour_N),
            propensity_B=torch.from_numpy(propensity_B.astype(np.float32)), arm_B=torch.from_numpy(arm_B.astype(np.float32)),
        )  # fmt: skip

    def _mine(self, epoch: int, first_batch: int) -> Iterator[np.ndarray]:
        """The rows of each batch that this process works on: every R-th, or whole groups of them."""
        if self.together > 1:
            yield from (batch.share(self.rank, self.world_size) for batch in self._grouped(epoch)[first_batch:])
            return
        order_X = rng_of(self.seed, epoch, 2).permutation(self._rows(epoch))
        ends = batch_ends(len(order_X), self.batch_size)
        for bucket in range(first_batch // BUCKET_BATCHES, -(-len(ends) // BUCKET_BATCHES)):
            first = bucket * BUCKET_BATCHES
            begin, cut = ends[first - 1] if first else 0, ends[first : first + BUCKET_BATCHES]
            row_X = order_X[begin : cut[-1]]
            if self.bucket_by_length:
                row_X = row_X[np.argsort(np.minimum(self.dataset.examples[POSITION][row_X], self.max_history), kind="stable")]
            batches = np.split(row_X, np.asarray(cut[:-1], np.int64) - begin)
            if self.bucket_by_length:
                batches = [batches[i] for i in rng_of(self.seed, epoch, 3, bucket).permutation(len(batches))]
            yield from (rows[self.rank :: self.world_size] for index, rows in enumerate(batches, first) if index >= first_batch)

    def _grouped(self, epoch: int) -> list[Grouped]:
        """The batches of an epoch, the same on every process."""
        row_X = self._rows(epoch)
        user_X, ends = np.asarray(self.dataset.examples[USER][row_X]), batch_ends(len(row_X), self.batch_size)
        positive_X = np.zeros(len(row_X), bool)
        for task in self.tasks:
            positive_X |= np.asarray(self.dataset.examples[label(task)][row_X]) == 1
        return grouped(row_X, user_X, positive_X, self.together, ends, rng_of(self.seed, epoch, 4))

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


def batch_ends(num_rows: int, batch_size: int) -> list[int]:
    """Where batches end; a remainder of less than half a batch goes to the last one, so that every process has rows of it."""
    ends = list(range(batch_size, num_rows + 1, batch_size))
    rest = num_rows - (ends[-1] if ends else 0)
    if ends and 2 * rest < batch_size:
        ends[-1] = num_rows
    elif rest:
        ends.append(num_rows)
    return ends


def _num_batches(num_rows: int, batch_size: int) -> int:
    return len(batch_ends(num_rows, batch_size))


def _after_lead(length_B: np.ndarray, lead_B: np.ndarray) -> torch.Tensor:
    """target_N: False for the first `lead_B` events of each row."""
    return torch.from_numpy(ranges(np.zeros_like(length_B), length_B) >= np.repeat(lead_B, length_B))


def _filled(row_W: np.ndarray, length_W: np.ndarray, tokens: int, least: int) -> list[np.ndarray]:
    """Rows in ascending order of length, cut into batches of at most `tokens` cells when padded, but of `least` rows."""
    batches, end = [], len(row_W)
    while end:
        begin = max(0, end - max(least, tokens // max(1, int(length_W[end - 1]))))
        batches.append(row_W[0 if begin < least else begin : end])
        end = 0 if begin < least else begin
    return batches


def rng_of(*purpose: int) -> np.random.Generator:
    """Random numbers of their own for every purpose."""
    return np.random.default_rng(purpose)


def _int64(value_N: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(value_N.astype(np.int64, copy=False))


def ids_of(value_N: np.ndarray, length_B: np.ndarray) -> Ids:
    """Rows of `length_B` values each, as tensors."""
    return Ids(_int64(value_N), _int64(length_B))
