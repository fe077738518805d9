"""Lists from scores that few items have: the best of those, then everyone's ranking of the rest. Nothing of users x items.

Shapes: U = users, K = places, E = events, I = rows of the item table, N = scores of one piece, R = users of a piece or of a
batch, G = runs of a user's scores, P = first items of the rest.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from recsys.columns import FIRST_ID, PADDING_ID
from recsys.jagged import Jagged, ranges


class Piece(NamedTuple):
    """Scores of some users' items, rows ascending. No (user, item) has two, in one piece or over several."""

    row_N: np.ndarray
    item_N: np.ndarray
    score_N: np.ndarray


class Scorer(Protocol):
    @property
    def rest_I(self) -> np.ndarray:
        """The catalogue, best first, for items without a score of their own: they stand below all that have one."""
        ...

    def pieces(self, history: Jagged) -> Iterator[Piece]:
        """The scores there are, from each user's items, oldest first."""
        ...


def recommend(scorer: Scorer, history: Jagged, num_items: int, k: int, *, filter_seen: bool, batch: int = 512) -> np.ndarray:
    """item_UK: each user's best `k` items, best first, the lower id first among equal scores; 0 fills a short list.

    Padding and unknown are never recommended, nor, with `filter_seen`, an item of the user's history. In memory: one piece, and
    `batch` users times their longest history and two lists.
    """
    item_UK = np.full((len(history), k), PADDING_ID, np.int64)
    score_UK = np.full((len(history), k), -np.inf)
    seen_E = np.unique(history.row_E * num_items + history.item_E) if filter_seen else np.zeros(0, np.int64)
    for piece in scorer.pieces(history):
        _merge(item_UK, score_UK, piece, seen_E, num_items)
    short_U = np.flatnonzero(item_UK[:, -1] == PADDING_ID)
    short_U = short_U[np.argsort(history.lengths[short_U], kind="stable")]
    place_I = np.full(num_items, len(scorer.rest_I))
    place_I[scorer.rest_I] = np.arange(len(scorer.rest_I))
    for begin in range(0, len(short_U), batch):
        row_R = short_U[begin : begin + batch]
        seen = history.take(row_R) if filter_seen else Jagged.from_lists([[]] * len(row_R))
        item_UK[row_R] = _filled(item_UK[row_R], seen, scorer.rest_I, place_I)
    return item_UK


def _merge(item_UK: np.ndarray, score_UK: np.ndarray, piece: Piece, seen_E: np.ndarray, num_items: int) -> None:
    """Put the piece's scores among the best that were found before."""
    row_N, item_N, score_N = piece
    if bad := np.count_nonzero(np.isnan(score_N)):
        raise ValueError(f"{bad} of {len(score_N)} scores are NaN")
    keep_N = (score_N >= score_UK[:, -1][row_N]) & (item_N >= FIRST_ID)
    row_N, item_N, score_N = row_N[keep_N], item_N[keep_N], score_N[keep_N]
    if len(seen_E):
        key_N = row_N * num_items + item_N
        new_N = seen_E[np.minimum(np.searchsorted(seen_E, key_N), len(seen_E) - 1)] != key_N
        row_N, item_N, score_N = row_N[new_N], item_N[new_N], score_N[new_N]
    if not len(row_N):
        return
    k, (row_R, count_R) = item_UK.shape[1], np.unique(row_N, return_counts=True)
    keep_N = score_N >= np.repeat(_lowest_that_matters(score_N, count_R, k), count_R)
    row_N, item_N, score_N = row_N[keep_N], item_N[keep_N], score_N[keep_N]
    row_N = np.concatenate([np.repeat(row_R, k), row_N])
    item_N = np.concatenate([item_UK[row_R].ravel(), item_N])
    score_N = np.concatenate([score_UK[row_R].ravel(), score_N])
    order_N = np.lexsort((item_N, -score_N, row_N))
    count_R = np.diff(np.searchsorted(row_N[order_N], np.append(row_R, len(item_UK))))
    first_N = order_N[ranges(np.cumsum(count_R) - count_R, np.full(len(row_R), k))]  # the old list alone has k places
    item_UK[row_R], score_UK[row_R] = item_N[first_N].reshape(-1, k), score_N[first_N].reshape(-1, k)


def _lowest_that_matters(score_N: np.ndarray, count_R: np.ndarray, k: int) -> np.ndarray:
    """A score that at least `k` of each row reach: the `k`th best of the maxima of 2 k runs of it. It spares most a sort."""
    bar_R, runs = np.full(len(count_R), -np.inf), 2 * k
    many_R = count_R >= runs
    if many_R.any():
        start_R = np.cumsum(count_R[many_R]) - count_R[many_R]
        edge_RG = start_R[:, None] + count_R[many_R][:, None] * np.arange(runs) // runs
        top_RG = np.maximum.reduceat(score_N[np.repeat(many_R, count_R)], edge_RG.ravel()).reshape(-1, runs)
        bar_R[many_R] = np.partition(top_RG, runs - k, axis=1)[:, runs - k]
    return bar_R


def _filled(item_RK: np.ndarray, seen: Jagged, rest_I: np.ndarray, place_I: np.ndarray) -> np.ndarray:
    """The lists with the first items of the rest, where they have no more of their own. `place_I`: where it has an item."""
    k = item_RK.shape[1]
    own_R = (item_RK != PADDING_ID).sum(1)
    prefix = min(len(rest_I), k + k + int(seen.lengths.max(initial=0)))
    free_RP = np.ones((len(item_RK), prefix + 1), bool)  # the last column takes what stands further down
    free_RP[seen.row_E, np.minimum(place_I[seen.item_E], prefix)] = False
    row_N, column_N = np.nonzero(item_RK != PADDING_ID)
    free_RP[row_N, np.minimum(place_I[item_RK[row_N, column_N]], prefix)] = False
    free_RP[:, prefix] = False
    place_RP = own_R[:, None] + free_RP.cumsum(1) - 1
    row_N, column_N = np.nonzero(free_RP & (place_RP < k))
    filled_RK = item_RK.copy()
    filled_RK[row_N, place_RP[row_N, column_N]] = rest_I[column_N]
    return filled_RK
