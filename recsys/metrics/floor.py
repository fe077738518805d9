"""The floor every model is compared with: popularity, item-KNN and first-order transitions.

Each has `fit(timelines, num_items)` and `scores(history)`, and nothing to tune but item-KNN's `last`. What the counts are taken
from, training alone or training and validation, is the caller's choice of `timelines`, and belongs beside every figure.
Shapes: B = users in a batch, U = users, E = events, I = rows of the item table (padding and unknown included), K = places.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import scipy.sparse as sp

from recsys.columns import FIRST_ID, PADDING_ID
from recsys.jagged import Jagged


class Scorer(Protocol):
    def scores(self, history: Jagged) -> np.ndarray:
        """score_BI, a new array of floats, from each user's items, oldest first."""


@dataclass(frozen=True, eq=False)
class Popularity:
    """An item's number of training events, the same for every user."""

    count_I: np.ndarray

    @classmethod
    def fit(cls, timelines: Jagged, num_items: int) -> Self:
        return cls(_event_counts(timelines, num_items))

    def scores(self, history: Jagged) -> np.ndarray:
        return np.tile(self.count_I, (len(history), 1))


@dataclass(frozen=True, eq=False)
class ItemKNN:
    """Sum over the user's distinct items j of cos(i, j) = |U_i & U_j| / sqrt(|U_i| |U_j|), U_i being the users of item i.

    Sarwar et al. 2001, https://doi.org/10.1145/371920.372071. Differs from the paper: all neighbours count, not the nearest
    few, and an item is one or zero in a profile, whatever its rating.
    """

    similarity_II: sp.csr_array
    last: int | None = None  # score from this many last events; None is the whole history

    @classmethod
    def fit(cls, timelines: Jagged, num_items: int, *, last: int | None = None) -> Self:
        seen_UI = _incidence(timelines, num_items)
        users_I = seen_UI.sum(axis=0)
        unit_UI = seen_UI @ sp.diags_array(1 / np.sqrt(np.maximum(users_I, 1)))
        similarity_II = (unit_UI.T @ unit_UI).tocsr()
        return cls(similarity_II - sp.diags_array(similarity_II.diagonal()), last)

    def scores(self, history: Jagged) -> np.ndarray:
        profile = history if self.last is None else history.last(self.last)
        return (_incidence(profile, self.similarity_II.shape[0]) @ self.similarity_II).toarray()


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

    def scores(self, history: Jagged) -> np.ndarray:
        return (_incidence(history.last(1), len(self.tie_break_I)) @ self.count_II).toarray() + self.tie_break_I


def recommend(scorer: Scorer, history: Jagged, num_items: int, k: int, *, filter_seen: bool, batch: int = 512) -> np.ndarray:
    """item_UK: each user's best `k` items, best first, the lower id first among equal scores; 0 fills a short list.

    Padding and unknown are never recommended, nor, with `filter_seen`, an item of the user's history.
    """
    item_UK = np.full((len(history), k), PADDING_ID, np.int64)
    for begin in range(0, len(history), batch):
        chunk = history.slice(begin, begin + batch)
        score_BI = scorer.scores(chunk)
        assert score_BI.shape == (len(chunk), num_items), f"{score_BI.shape} scores for {len(chunk)} users, {num_items} items"
        score_BI[:, :FIRST_ID] = -np.inf
        if filter_seen:
            score_BI[chunk.row_E, chunk.item_E] = -np.inf
        item_BK = top_k(score_BI, min(k, num_items))
        item_UK[begin : begin + len(chunk), : item_BK.shape[1]] = item_BK
    return item_UK


def top_k(score_BI: np.ndarray, k: int) -> np.ndarray:
    """item_BK of the `k` highest scores, best first, the lower id first among equals; 0 in the place of a score of -inf."""
    num_items = score_BI.shape[1]
    assert 1 <= k <= num_items, f"k={k} of {num_items} items"
    if bad := np.count_nonzero(np.isnan(score_BI)):
        raise ValueError(f"{bad} of {score_BI.size} scores are NaN")
    # A partition alone keeps an arbitrary few of the items that tie at the last place: keep all above it, then the lowest ids.
    last_B1 = np.partition(score_BI, num_items - k, axis=1)[:, [num_items - k]]
    above_BI, level_BI = score_BI > last_B1, score_BI == last_B1
    places_B1 = k - above_BI.sum(axis=1, keepdims=True)
    keep_BI = above_BI | (level_BI & (level_BI.cumsum(axis=1, dtype=np.int32) <= places_B1))
    item_BK = np.nonzero(keep_BI)[1].reshape(-1, k)
    score_BK = np.take_along_axis(score_BI, item_BK, axis=1)
    order_BK = np.argsort(-score_BK, axis=1, kind="stable")
    item_BK = np.where(np.isneginf(score_BK), PADDING_ID, item_BK)
    return np.take_along_axis(item_BK, order_BK, axis=1)


def _event_counts(timelines: Jagged, num_items: int) -> np.ndarray:
    return np.bincount(timelines.item_E, minlength=num_items).astype(np.float64)


def _incidence(lists: Jagged, num_items: int) -> sp.csr_array:
    """1 where the user has the item, however often."""
    seen_UI = _count_pairs(lists.row_E, lists.item_E, (len(lists), num_items)).astype(np.float32)
    seen_UI.data[:] = 1
    return seen_UI


def _count_pairs(row_E: np.ndarray, column_E: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array((np.ones(len(row_E)), (row_E, column_E)), shape)
