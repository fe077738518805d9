"""What a user did with each item of their timeline: labels of past events, as bit masks.

Needs numpy only. Shapes: E = timeline events of all users, X = examples of one part, K = distinct keys among them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.columns import ITEM, POSITION, TIME_MS, USER, label
from recsys.dataset import Dataset
from recsys.errors import InputError

MAX_TASKS = 63  # bits of a signed 64-bit integer but for its sign
KNOWN_AT_ONCE = ("at_least",)  # kinds of label that no later row changes; an expression over the row is another
PART = 1 << 20  # examples at a time


def known_at_once(dataset: Dataset, tasks: Sequence[str]) -> list[str]:
    """The tasks whose label stands in the event's own row.

    The others wait for later rows (`within`) or are fitted on all of them (`quantile`): at the time of the next example they
    are not known yet, so a history that shows them tells the future.
    """
    specs: dict[str, Any] = _events(dataset).get("labels", {})
    kinds = {task: spec["kind"] for task, spec in specs.items() if not isinstance(spec, str)}
    return [task for task in tasks if task not in kinds or kinds[task] in KNOWN_AT_ONCE]


def behaviours(dataset: Dataset, tasks: Sequence[str]) -> np.ndarray:
    """mask_E: bit t is set where the log's row of the timeline event had label 1 for `tasks[t]`.

    Bits of tasks that are not `known_at_once` are never set, nor those of events without any label. A mask is known to whoever
    sees the event, so that a history, which is a slice of the timeline, can take the same slice of the masks.

    The row of an event is the example of its user, item and time whose history ends just before it. Under `ties: simultaneous`
    the histories of all rows of a moment end there, so that events of one user, item and time share the bits of all such rows.
    Raises InputError.
    """
    if len(tasks) > MAX_TASKS:
        raise InputError(f"{len(tasks)} tasks do not fit the {MAX_TASKS} bits of a behaviour mask: name fewer in ranker.tasks")
    mask_E, examples = np.zeros(len(dataset.item_E), np.int64), dataset.examples
    known = known_at_once(dataset, tasks)
    bits = {label(task): np.int64(1 << bit) for bit, task in enumerate(tasks) if task in known}
    simultaneous = _events(dataset).get("ties") == "simultaneous"
    for begin in range(0, len(examples[USER]) if examples else 0, PART):
        part = slice(begin, begin + PART)
        user_X, item_X, time_ms_X, position_X = (examples[name][part] for name in (USER, ITEM, TIME_MS, POSITION))
        bits_X = np.zeros(len(user_X), np.int64)
        for name, bit in bits.items():
            bits_X |= np.where(examples[name][part] == 1, bit, 0)
        row_X = np.flatnonzero(position_X < dataset.length_U[user_X])
        place_X = dataset.start_U[user_X[row_X]] + position_X[row_X]  # of the first event that the example does not see
        same_X = dataset.time_ms_E[place_X] == time_ms_X[row_X]
        row_X, place_X = row_X[same_X], place_X[same_X]
        if simultaneous:
            _share(mask_E, dataset, place_X, item_X[row_X], bits_X[row_X])
        else:
            same_X = dataset.item_E[place_X] == item_X[row_X]
            mask_E[place_X[same_X]] = bits_X[row_X[same_X]]  # the last of several: an event comes after what shares its place
    return mask_E


def tasks_shown(mask_E: np.ndarray, tasks: Sequence[str]) -> list[str]:
    """The tasks whose bit some event has. Others, such as one whose label stands in rows of its own, show in no history."""
    shown = int(np.bitwise_or.reduce(mask_E)) if len(mask_E) else 0
    return [task for bit, task in enumerate(tasks) if shown >> bit & 1]


def _share(mask_E: np.ndarray, dataset: Dataset, place_X: np.ndarray, item_X: np.ndarray, bits_X: np.ndarray) -> None:
    """Give the bits of every example to the events of its item and moment, the first event of which stands in `place_X`."""
    if not len(place_X):
        return
    start_U = dataset.start_U
    first = int(place_X.min())
    user = np.searchsorted(start_U, place_X.max(), side="right") - 1
    part = slice(first, start_U[user] + dataset.length_U[user])
    begins_E = np.append(True, np.diff(dataset.time_ms_E[part]) != 0)
    begins_E[start_U[slice(*np.searchsorted(start_U, (part.start, part.stop)))] - first] = True
    begins_E[place_X - first] = True
    moment_E = np.maximum.accumulate(np.where(begins_E, np.arange(len(begins_E)), 0))
    key_E = moment_E << 32 | dataset.item_E[part]
    key_K, place_in_K = np.unique((place_X - first) << 32 | item_X, return_inverse=True)
    bits_K = np.zeros(len(key_K), np.int64)
    np.bitwise_or.at(bits_K, place_in_K, bits_X)
    found_E = np.minimum(np.searchsorted(key_K, key_E), len(key_K) - 1)
    mask_E[part] |= np.where(key_K[found_E] == key_E, bits_K[found_E], 0)


def _events(dataset: Dataset) -> dict[str, Any]:
    """The `data.events` section that the dataset was made with."""
    return dict(dataset.manifest["config"].get("events", {}))
