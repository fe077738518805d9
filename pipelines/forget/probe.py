"""What a model loses on users' own events, beside what a model of nobody would: the measure of the membership attack.

Shapes: U = users asked about, B = rows of a batch, E = events, X = examples, T = tasks, W = windows.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from pipelines.forget.plain import Plain
from recsys.batch import Batch, Ids
from recsys.columns import TRAIN, UNKNOWN_ID, USER, label
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.jagged import gather, ranges
from recsys.loader import ExampleLoader, ids_of

USERS_AT_ONCE = 64
MAX_WINDOWS = 8  # of one user: the newest
Rows = tuple[Batch, list[int], np.ndarray]  # a batch, how many of its rows each user has, and each user's baseline loss


class Probe(Protocol):
    """Batches of the users asked about, each user's rows side by side. Users without rows have 0 of them."""

    def rows(self, user_U: np.ndarray, splits: Sequence[int], *, known: bool) -> Rows:
        """`known`: whether the model may look up the user's own row; else the row of unknown users is read."""
        ...


class RetrieverProbe:
    """Every event of the newest windows. The model of nobody draws items by their popularity in training, plus one."""

    def __init__(self, config: RunConfig, data: Dataset):
        self.data, self.size = data, config.max_history + 1
        self.surprise_I = -np.log((data.train_count_I + 1.0) / (data.train_count_I + 1.0).sum())

    def rows(self, user_U: np.ndarray, splits: Sequence[int], *, known: bool = True) -> Rows:
        first_U, length_U = _span(self.data, user_U, splits)
        kept_U = np.minimum(length_U, self.size * MAX_WINDOWS)
        first_U = first_U + length_U - kept_U
        count_U = -(-kept_U // self.size)
        place_W = ranges(np.zeros_like(count_U), count_U) * self.size
        start_W = np.repeat(first_U, count_U) + place_W
        length_W = np.minimum(np.repeat(kept_U, count_U) - place_W, self.size)
        item_E, time_E = (gather(column_E, start_W, length_W) for column_E in (self.data.item_E, self.data.time_ms_E))
        batch = Batch({"history": ids_of(item_E, length_W)}, time_N=torch.from_numpy(time_E.astype(np.int64)))
        owner_E = np.repeat(np.repeat(np.arange(len(user_U)), count_U), length_W)
        baseline_U = np.bincount(owner_E, self.surprise_I[item_E], len(user_U)) / np.maximum(kept_U, 1)
        return batch, count_U.tolist(), baseline_U


class RankerProbe:
    """Every labelled example, all tasks but numbers. The model of nobody says each task's mean over the training
    examples, whatever it is asked."""

    def __init__(self, config: RunConfig, data: Dataset):
        self.data, self.tasks = data, [task for task in config.tasks if task not in config.regression]
        self.loader = ExampleLoader(
            data, tasks=list(config.tasks), split=TRAIN, max_history=config.ranker_history, batch_size=1, seed=config.seed,
            behaviours=config.ranker.sharing.reads_behaviours, dense=config.ranker_features,
        )  # fmt: skip
        self.columns = [list(config.tasks).index(task) for task in self.tasks]
        row_X = data.example_rows(TRAIN)
        mean_T = [np.nanmean(np.asarray(data.examples[label(task)][row_X])) for task in self.tasks]
        self.rate_T = np.clip(mean_T, 1e-6, 1 - 1e-6)
        self.numbers = [place for place, task in enumerate(config.tasks) if task in config.regression]

    def rows(self, user_U: np.ndarray, splits: Sequence[int], *, known: bool = True) -> Rows:
        row_X = np.concatenate([self.data.example_rows(split) for split in splits])
        owner_X = np.asarray(self.data.examples[USER][np.sort(row_X)])
        row_X = np.sort(row_X)[np.isin(owner_X, user_U)]
        owner_X = np.searchsorted(np.sort(user_U), np.asarray(self.data.examples[USER][row_X]))
        place_U = np.argsort(user_U, kind="stable")  # of the sorted users among those asked about
        owner_X = place_U[owner_X]
        order_X = np.argsort(owner_X, kind="stable")
        batch = self.loader.batch(row_X[order_X])
        batch.label_BT[:, self.numbers] = torch.nan  # numbers have no loss that a base rate could have
        batch.weight_B.fill_(1)
        if not known:
            one = batch.ids["user"]
            batch.ids["user"] = Ids(torch.full_like(one.value_N, UNKNOWN_ID), one.length_B)
        label_XT = batch.label_BT[:, self.columns].numpy()
        loss_XT = -np.where(label_XT > 0.5, np.log(self.rate_T), np.log1p(-self.rate_T))
        there_XT, owner_X = ~np.isnan(label_XT), owner_X[order_X]
        summed_U = np.bincount(owner_X, np.where(there_XT, loss_XT, 0).sum(1), len(user_U))
        labels_U = np.bincount(owner_X, there_XT.sum(1), len(user_U))
        return batch, np.bincount(owner_X, minlength=len(user_U)).tolist(), summed_U / np.maximum(labels_U, 1)


def probe(config: RunConfig, data: Dataset, part: str) -> Probe:
    """Of the part retriever or ranker."""
    return RetrieverProbe(config, data) if part == "retriever" else RankerProbe(config, data)


def with_rows(found: Probe, user_U: np.ndarray, splits: Sequence[int], *, known: bool) -> Iterator[tuple[np.ndarray, Rows]]:
    """Some users at a time, those who have rows, with their rows."""
    for begin in range(0, len(user_U), USERS_AT_ONCE):
        asked_U = user_U[begin : begin + USERS_AT_ONCE]
        batch, sizes, baseline_U = found.rows(asked_U, splits, known=known)
        has_U = np.asarray(sizes) > 0
        if has_U.any():
            yield asked_U[has_U], (batch, [size for size in sizes if size], baseline_U[has_U])


@torch.no_grad()
def gains(
    plain: Plain, found: Probe, user_U: np.ndarray, splits: Sequence[int], *, known: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The users that have rows in the splits, and how much better than nobody's the model predicts each one's, in nats."""
    users, values = [np.empty(0, np.int64)], [np.empty(0)]
    for asked_U, (batch, sizes, baseline_U) in with_rows(found, user_U, splits, known=known):
        sum_U, count_U = plain.losses(batch, sizes)
        users.append(asked_U)
        values.append(baseline_U - (sum_U / count_U.clamp(min=1e-12)).numpy())
    return np.concatenate(users), np.concatenate(values)


def _span(data: Dataset, user_U: np.ndarray, splits: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of the users' timeline events in neighbouring splits."""
    first_U, length_U = data.events(splits[0])[0][user_U], np.zeros(len(user_U), np.int64)
    for split in splits:
        length_U = length_U + data.events(split)[1][user_U]
    return first_U, length_U
