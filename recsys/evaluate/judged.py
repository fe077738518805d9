"""Whom a model is judged on: users with events in a split, what came before it, and what they then chose.

Shapes: U = users judged, E = events, B = users of one batch.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.columns import TRAIN
from recsys.dataset import Dataset
from recsys.jagged import Jagged, gather
from recsys.metrics.ranking import among

RequestTime = Literal["target", "last_event"]


@dataclass(frozen=True)
class Judged:
    """Users with events in a split: what came before the split, and what they then chose."""

    user_U: np.ndarray  # dense ids
    history: Jagged
    relevant: Jagged
    time_ms: Jagged  # when each event of the history happened and, as one more entry, when the list is asked for

    def take(self, row_B: np.ndarray) -> "Judged":
        """These of them."""
        return Judged(self.user_U[row_B], self.history.take(row_B), self.relevant.take(row_B), self.time_ms.take(row_B))


def judged_users(data: Dataset, split: int, *, filter_seen: bool, request_time: RequestTime = "target") -> Judged:
    """A user's history is everything before their first event of the split. With `filter_seen`, a repeat of the history is
    no target, because it cannot be recommended; a user with nothing else is left out.

    A list is asked for at the time of the first event of the split, as a server knows it, or ("last_event") at the time of
    the last event of the history, for models that must not know when the user came back.
    """
    first_U, targets_U = data.events(split)
    user_U = np.flatnonzero(targets_U)
    history = _slices(data.item_E, user_U, data.start_U, first_U - data.start_U)
    relevant = _slices(data.item_E, user_U, first_U, targets_U)
    request_E = data.start_U[user_U] + history.lengths - (request_time == "last_event") * (history.lengths > 0)
    time_ms = _with_last(_slices(data.time_ms_E, user_U, data.start_U, first_U - data.start_U), data.time_ms_E[request_E])
    if not filter_seen:
        return Judged(user_U, history, relevant, time_ms)
    keys_E = relevant.row_E * data.num_items + relevant.item_E
    fresh_E = ~among(keys_E, np.sort(history.row_E * data.num_items + history.item_E))
    left_U = np.bincount(relevant.row_E[fresh_E], minlength=len(user_U))
    relevant = Jagged(relevant.item_E[fresh_E], np.concatenate([[0], np.cumsum(left_U)]))
    kept = np.flatnonzero(left_U)
    return Judged(user_U, history, relevant, time_ms).take(kept)


def training_timelines(data: Dataset) -> Jagged:
    """Every user's timeline up to the end of the training split."""
    return _slices(data.item_E, np.arange(data.num_users), *data.events(TRAIN))


def _slices(value_E: np.ndarray, user_U: np.ndarray, start: np.ndarray, length: np.ndarray) -> Jagged:
    return Jagged(gather(value_E, start[user_U], length[user_U]), np.concatenate([[0], np.cumsum(length[user_U])]))


def _with_last(lists: Jagged, last_U: np.ndarray) -> Jagged:
    """Each list with one more entry at its end."""
    return Jagged(np.insert(lists.item_E, lists.offset_U1[1:], last_U), lists.offset_U1 + np.arange(len(lists) + 1))
