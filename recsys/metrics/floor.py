"""The floor every model is compared with: popularity, item-KNN and first-order transitions.

Each has `fit(timelines, num_items)`, and nothing to tune but item-KNN's `last`. What the counts are taken from, training alone
or training and validation, is the caller's choice of `timelines`, and belongs beside every figure. Scores of users x items are
never dense: `pieces` has the items with a score of their own for a user, `rest_I` ranks all others, alike for everyone.
Shapes: U = users, E = events, I = rows of the item table (padding and unknown included), N = scores of one piece, J = items
that users are scored from, W = items of one block, B = users of one piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged, ranges
from recsys.metrics.floor_lists import Piece, Scorer, recommend

__all__ = ["ItemKNN", "Popularity", "Scorer", "Transitions", "recommend"]

PIECE_SCORES = 2**22  # of one piece; of item-KNN's block of similarities too


@dataclass(frozen=True, eq=False)
class Popularity:
    """An item's number of training events, the same for every user."""

    count_I: np.ndarray

    @classmethod
    def fit(cls, timelines: Jagged, num_items: int) -> Self:
        return cls(_event_counts(timelines, num_items))

    @cached_property
    def rest_I(self) -> np.ndarray:
        return _descending(self.count_I)

    def pieces(self, history: Jagged) -> Iterator[Piece]:
        return iter(())


@dataclass(frozen=True, eq=False)
class ItemKNN:
    """Sum over the user's distinct items j of cos(i, j) = |U_i & U_j| / sqrt(|U_i| |U_j|), U_i being the users of item i.

    Sarwar et al. 2001, https://doi.org/10.1145/371920.372071. Differs from the paper: all neighbours count, not the nearest
    few, and an item is one or zero in a profile, whatever its rating.

    Only similarities of items that some user is scored from are made, for a block of items at a time: at most PIECE_SCORES of
    them are in memory (or one item's), beside the training events.
    """

    unit_UI: sp.csc_array  # 1 / sqrt(|U_i|) where the user has the item
    last: int | None = None  # score from this many last events; None is the whole history

    @classmethod
    def fit(cls, timelines: Jagged, num_items: int, *, last: int | None = None) -> Self:
        seen_UI = _incidence(timelines, num_items)
        return cls((seen_UI @ sp.diags_array(1 / np.sqrt(np.maximum(seen_UI.sum(axis=0), 1)))).tocsc(), last)

    @property
    def rest_I(self) -> np.ndarray:
        """Items that share no user with the profile tie at 0: by id."""
        return np.arange(FIRST_ID, self.unit_UI.shape[1])

    def pieces(self, history: Jagged) -> Iterator[Piece]:
        num_items = self.unit_UI.shape[1]
        profile_UI = _incidence(history if self.last is None else history.last(self.last), num_items)
        item_J = np.unique(profile_UI.indices)
        profile_UJ = sp.csr_array(
            (profile_UI.data, np.searchsorted(item_J, profile_UI.indices), profile_UI.indptr), (len(history), len(item_J))
        )
        unit_JU = self.unit_UI[:, item_J].T.tocsr()
        for begin, end in _blocks(self._most_similar(unit_JU)):
            similarity_JW = (unit_JU @ self.unit_UI[:, begin:end].tocsr()).tocsr()
            own_N = item_J[np.repeat(np.arange(len(item_J)), np.diff(similarity_JW.indptr))] == begin + similarity_JW.indices
            similarity_JW.data[own_N] = 0
            for first, stop in _blocks(_row_sums(profile_UJ, np.diff(similarity_JW.indptr))):
                score_BW = profile_UJ[first:stop] @ similarity_JW
                row_N = np.repeat(np.arange(first, stop), np.diff(score_BW.indptr))
                some_N = score_BW.data > 0
                yield Piece(row_N[some_N], begin + score_BW.indices[some_N].astype(np.int64), score_BW.data[some_N])

    def _most_similar(self, unit_JU: sp.csr_array) -> np.ndarray:
        """At most so many of the items J share a user with each item."""
        of_U = np.bincount(unit_JU.indices, minlength=unit_JU.shape[1])
        sums_I1 = np.concatenate([[0], np.cumsum(of_U[self.unit_UI.indices])])[self.unit_UI.indptr]
        return np.minimum(np.diff(sums_I1), unit_JU.shape[0])


@dataclass(frozen=True, eq=False)
class Transitions:
    """How often an item directly followed the user's last item, over all training timelines; equal counts go by popularity.

    Scores are float64: a count plus a tie breaker below 1 does not fit in the 24 bits of float32.
    """

    count_II: sp.csr_array  # row: the item before, column: the item after
    tie_break_I: np.ndarray

    @classmethod
    def fit(cls, timelines: Jagged, num_items: int) -> Self:
        same_user_E = np.diff(timelines.row_E) == 0
        before_E, after_E = timelines.item_E[:-1][same_user_E], timelines.item_E[1:][same_user_E]
        popularity_I = _event_counts(timelines, num_items)
        return cls(_count_pairs(before_E, after_E, (num_items, num_items)), popularity_I / (popularity_I.sum() + 1))

    @cached_property
    def rest_I(self) -> np.ndarray:
        return _descending(self.tie_break_I)

    def pieces(self, history: Jagged) -> Iterator[Piece]:
        user_N = np.flatnonzero(history.lengths)
        last_N = history.item_E[history.offset_U1[user_N + 1] - 1]
        start_N, count_N = self.count_II.indptr[last_N].astype(np.int64), np.diff(self.count_II.indptr)[last_N].astype(np.int64)
        for begin, end in _blocks(count_N):
            entry_N = ranges(start_N[begin:end], count_N[begin:end])
            item_N = self.count_II.indices[entry_N].astype(np.int64)
            row_N = np.repeat(user_N[begin:end], count_N[begin:end])
            yield Piece(row_N, item_N, self.count_II.data[entry_N] + self.tie_break_I[item_N])


def _blocks(cost_N: np.ndarray) -> Iterator[tuple[int, int]]:
    """[begin, end) of consecutive runs that cost at most PIECE_SCORES together, or are one alone that costs more."""
    total_N, begin = np.cumsum(cost_N), 0
    while begin < len(cost_N):
        spent = total_N[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total_N, spent + PIECE_SCORES, side="right")))
        yield begin, end
        begin = end


def _row_sums(profile_UJ: sp.csr_array, cost_J: np.ndarray) -> np.ndarray:
    """What each user's items cost together."""
    return np.diff(np.concatenate([[0], np.cumsum(cost_J[profile_UJ.indices], dtype=np.int64)])[profile_UJ.indptr])


def _descending(score_I: np.ndarray) -> np.ndarray:
    """The catalogue by score, the lower id first among equals."""
    return FIRST_ID + np.argsort(-score_I[FIRST_ID:], kind="stable")


def _event_counts(timelines: Jagged, num_items: int) -> np.ndarray:
    return np.bincount(timelines.item_E, minlength=num_items).astype(np.float64)


def _incidence(lists: Jagged, num_items: int) -> sp.csr_array:
    """1 where the user has the item, however often."""
    seen_UI = _count_pairs(lists.row_E, lists.item_E, (len(lists), num_items)).astype(np.float32)
    seen_UI.data[:] = 1
    return seen_UI


def _count_pairs(row_E: np.ndarray, column_E: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array((np.ones(len(row_E)), (row_E, column_E)), shape)
