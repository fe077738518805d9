"""Prompts: histories with the event that followed, for policies that learn from rewards.

A prompt is a row of a batch: its ids are `user`, `item` (what the log has next), `history` (the recent items), `seen` (all
items so far, where those are not recommended) and, for models that read it, `time` (milliseconds of each event of the history
and, last, of the request).
Shapes: B = prompts of a batch, P = prompts of an epoch, X = examples, T = tasks, U = users, E = timeline events.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from recsys.batch import Batch, Ids
from recsys.behaviours import behaviours, known_at_once
from recsys.columns import ITEM, POSITION, PROPENSITY, TIME_MS, TRAIN, USER, label
from recsys.dataset import Dataset
from recsys.jagged import Jagged, gather
from recsys.loader import batch_ends, ids_of, rng_of

POSITIONS, PROMPTS, LOGGED = 5, 6, 7  # purposes of random numbers, beside those of the other loaders


@dataclass(frozen=True)
class Histories:
    """What of a user's past a prompt shows."""

    dataset: Dataset
    max_history: int
    seen: bool = True
    reads_time: bool = False
    request_time: Literal["target", "last_event"] = "target"

    def ids(self, user_B: np.ndarray, position_B: np.ndarray, item_B: np.ndarray, time_ms_B: np.ndarray) -> dict[str, Ids]:
        """`position_B`: how many events of the user come before. `time_ms_B`: when the item was chosen."""
        data, one_B = self.dataset, np.ones_like(position_B)
        length_B = np.minimum(position_B, self.max_history)
        first_B = data.start_U[user_B]
        start_B = first_B + position_B - length_B
        seen_B = position_B if self.seen else np.zeros_like(position_B)
        ids = {
            "user": ids_of(user_B, one_B),
            "item": ids_of(item_B, one_B),
            "history": ids_of(gather(data.item_E, start_B, length_B), length_B),
            "seen": ids_of(gather(data.item_E, first_B, seen_B), seen_B),
        }
        if self.reads_time:
            ids["time"] = self._times(first_B + position_B, start_B, length_B, time_ms_B)
        return ids

    def _times(self, end_B: np.ndarray, start_B: np.ndarray, length_B: np.ndarray, time_ms_B: np.ndarray) -> Ids:
        if self.request_time == "last_event":
            time_ms_B = np.where(length_B > 0, self.dataset.time_ms_E[np.maximum(end_B - 1, 0)], time_ms_B)
        ends_B = np.cumsum(length_B)
        return ids_of(np.insert(gather(self.dataset.time_ms_E, start_B, length_B), ends_B, time_ms_B), length_B + 1)


@dataclass(frozen=True)
class PromptLoader:
    """One event of each user in a split, another one in each epoch: the history before it, the item, what was done.

    The first event of a timeline is no prompt, since nothing is known before it, nor is a repeat where what was seen is not
    recommended. `only_U`: which users take part. A label is 1 where the log's row of the event had it (`recsys.behaviours`), 0
    where not, and NaN for tasks that were not known at once.
    """

    histories: Histories
    batch_size: int
    seed: int
    tasks: Sequence[str] = ()
    split: int = TRAIN
    only_U: np.ndarray | None = None
    rank: int = 0
    world_size: int = 1

    @property
    def users(self) -> np.ndarray:
        """Those with a prompt."""
        return np.flatnonzero(self._places.lengths)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Shuffled batches of this rank."""
        user_P, places = self.users, self._places
        share_P = rng_of(self.seed, epoch, POSITIONS).random(len(user_P))
        position_P = places.item_E[places.offset_U1[user_P] + (share_P * places.lengths[user_P]).astype(np.int64)]
        order_P = rng_of(self.seed, epoch, PROMPTS).permutation(len(user_P))
        for row_B in np.split(order_P, batch_ends(len(order_P), self.batch_size)[:-1])[first_batch:]:
            mine_B = row_B[self.rank :: self.world_size]
            yield self.batch(user_P[mine_B], position_P[mine_B])

    def num_batches(self, epoch: int) -> int:
        """The same on every process."""
        return len(batch_ends(len(self.users), self.batch_size))

    def first_of(self, split: int) -> Iterator[Batch]:
        """Each user's first event of a split that could be recommended, for evaluation."""
        data = self.histories.dataset
        first_U, count_U = data.events(split)
        user_P = np.flatnonzero(count_U if self.only_U is None else count_U * self.only_U)
        user_P = user_P[self._is_fresh_E[first_U[user_P]]]
        for row_B in np.split(user_P, range(self.batch_size, len(user_P), self.batch_size)):
            if len(row_B):
                yield self.batch(row_B, first_U[row_B] - data.start_U[row_B])

    def batch(self, user_B: np.ndarray, position_B: np.ndarray) -> Batch:
        """The events at these places of the timelines."""
        data = self.histories.dataset
        place_B = data.start_U[user_B] + position_B
        ids = self.histories.ids(user_B, position_B, data.item_E[place_B], data.time_ms_E[place_B])
        return Batch(ids, label_BT=torch.from_numpy(self._labels(place_B)))

    @cached_property
    def _places(self) -> Jagged:
        """How many events of a user come before each event that may be a prompt."""
        data = self.histories.dataset
        user_E = data.timelines.row_E
        position_E = np.arange(len(user_E)) - data.start_U[user_E]
        begin_U, count_U = data.events(self.split)
        since_E = np.arange(len(user_E)) - begin_U[user_E]
        kept_E = self._is_fresh_E & (position_E > 0) & (since_E >= 0) & (since_E < count_U[user_E])
        if self.only_U is not None:
            kept_E &= self.only_U[user_E].astype(bool)
        kept_U = np.bincount(user_E[kept_E], minlength=data.num_users)
        return Jagged(position_E[kept_E], np.concatenate([[0], np.cumsum(kept_U)]))

    @cached_property
    def _is_fresh_E(self) -> np.ndarray:
        """Whether an event's item may be recommended before it."""
        data = self.histories.dataset
        if not self.histories.seen:
            return np.ones(len(data.item_E), bool)
        fresh_E = np.zeros(len(data.item_E), bool)
        fresh_E[np.unique(data.timelines.row_E * data.num_items + data.item_E, return_index=True)[1]] = True
        return fresh_E

    def _labels(self, place_B: np.ndarray) -> np.ndarray:
        label_BT = np.empty((len(place_B), len(self.tasks)), np.float32)
        for column, task in enumerate(self.tasks):
            known = task in self._known
            label_BT[:, column] = (self._behaviour_E[place_B] >> column) & 1 if known else np.nan
        return label_BT

    @cached_property
    def _behaviour_E(self) -> np.ndarray:
        return behaviours(self.histories.dataset, self.tasks)

    @cached_property
    def _known(self) -> list[str]:
        return known_at_once(self.histories.dataset, self.tasks)


@dataclass(frozen=True)
class LoggedLoader:
    """Rows of the log: the history before each, the item that was shown, what was done with it, and with what chance it was
    shown. Rows without a label of each task, or without a chance where it is read, are left out, and with `rewarded` also those
    whose labels are all 0."""

    histories: Histories
    batch_size: int
    seed: int
    tasks: Sequence[str]
    propensity: bool = True
    split: int = TRAIN
    rewarded: bool = False
    rank: int = 0
    world_size: int = 1
    row_X: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        examples = self.histories.dataset.examples
        row_X = self.histories.dataset.example_rows(self.split)
        kept_X = np.ones(len(row_X), bool)
        for name in [*(label(task) for task in self.tasks), *([PROPENSITY] if self.propensity else [])]:
            kept_X &= ~np.isnan(examples[name][row_X]) if name in examples else False
        if self.rewarded and kept_X.any():
            kept_X &= np.any([examples[label(task)][row_X] != 0 for task in self.tasks], axis=0)
        object.__setattr__(self, "row_X", row_X[kept_X])

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Shuffled batches of this rank."""
        order_X = rng_of(self.seed, epoch, LOGGED).permutation(self.row_X)
        for row_B in np.split(order_X, batch_ends(len(order_X), self.batch_size)[:-1])[first_batch:]:
            yield self.batch(row_B[self.rank :: self.world_size])

    def num_batches(self, epoch: int) -> int:
        """The same on every process."""
        return len(batch_ends(len(self.row_X), self.batch_size))

    def in_order(self) -> Iterator[Batch]:
        """All rows, for evaluation."""
        for begin in range(0, len(self.row_X), self.batch_size):
            yield self.batch(self.row_X[begin : begin + self.batch_size])

    def batch(self, row_B: np.ndarray) -> Batch:
        """The rows of the examples asked for."""
        examples = self.histories.dataset.examples
        user_B, item_B, position_B = (np.asarray(examples[name][row_B], np.int64) for name in (USER, ITEM, POSITION))
        time_ms_B = np.asarray(examples[TIME_MS][row_B]) if self.histories.reads_time else np.zeros_like(user_B)
        label_BT = np.empty((len(row_B), len(self.tasks)), np.float32)
        for column, task in enumerate(self.tasks):
            label_BT[:, column] = examples[label(task)][row_B]
        propensity_B = np.asarray(examples[PROPENSITY][row_B], np.float32) if self.propensity else np.empty(0, np.float32)
        return Batch(
            self.histories.ids(user_B, position_B, item_B, time_ms_B),
            label_BT=torch.from_numpy(label_BT),
            propensity_B=torch.from_numpy(propensity_B),
        )
