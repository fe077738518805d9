"""Parts of a test split that a mean over everybody hides: popular and rare targets, users with short and with long histories.

Shapes: I = rows of the item table, U = users, E = targets of all users, S = users that have a target of one slice.
"""

import numpy as np

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged

ITEM_SLICES = ("head", "torso", "tail")
USER_SLICES = ("cold", "warm")
NO_SLICE = -1  # of the reserved rows: nobody can recommend them
RULES = {
    "head": "targets among the most popular items, up to the first third of the training events",
    "torso": "targets among the items of the second third",
    "tail": "targets among the items of the last third, and those without a training event",
    "cold": "users whose history is shorter than the median of the judged users",
    "warm": "the other users",
}


def popularity_slices(train_count_I: np.ndarray) -> np.ndarray:
    """slice_I: the place in ITEM_SLICES of each item, NO_SLICE of the reserved rows.

    Items are sorted by their training events, and the events are cut into thirds. With `above` the share of events that go to
    strictly more popular items, an item is head where above < 1/3, torso where above < 2/3, else tail. So an item across a cut
    belongs to the more popular side, equally popular items are in one slice whatever their ids, and an item without training
    events is tail. Events are cut, and not items, as the short head of Cremonesi, Koren and Turrin 2010,
    https://doi.org/10.1145/1864708.1864721, which holds 33 % of the ratings. Differs from the paper: the rest is cut once more.
    """
    count_I = np.asarray(train_count_I[FIRST_ID:], np.int64)
    level, place_I, items = np.unique(-count_I, return_inverse=True, return_counts=True)  # most popular first
    events = -level * items
    above = events.cumsum() - events
    total = int(events.sum())
    slice_I = np.full(len(train_count_I), NO_SLICE, np.int8)
    slice_I[FIRST_ID:] = ((3 * above >= total).astype(np.int8) + (3 * above >= 2 * total))[place_I]
    return slice_I


def targets_of(relevant: Jagged, slice_I: np.ndarray, place: int) -> tuple[np.ndarray, Jagged]:
    """row_S, the users with a target of this slice, and their targets of it: what they chose of the others does not count."""
    keep_E = slice_I[relevant.item_E] == place
    left_U = np.bincount(relevant.row_E[keep_E], minlength=len(relevant))
    row_S = np.flatnonzero(left_U)
    return row_S, Jagged(relevant.item_E[keep_E], np.concatenate([[0], np.cumsum(left_U[row_S])]))


def history_slices(length_U: np.ndarray) -> np.ndarray:
    """slice_U: the place in USER_SLICES, cold where the history is shorter than the median of these users."""
    assert len(length_U), "no user to take the median of"
    return (length_U >= np.median(length_U)).astype(np.int8)
