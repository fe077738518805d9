"""Which item goes with each one best, on timelines. Shapes: E = events, P = pairs of them, I = rows of the item table."""

import numpy as np
from scipy import sparse

from recsys.jagged import Jagged

REACH = 3  # events of one user that are at most so far apart count as seen together


def similar_items(timelines: Jagged, num_items: int, *, reach: int = REACH) -> np.ndarray:
    """similar_I: of the items seen near an item the one with the highest pairs / sqrt(events of the one * of the other).

    That is the cosine of item-based collaborative filtering, Sarwar et al. 2001, https://doi.org/10.1145/371920.372071, on
    neighbours in time. Of equals the lowest id; an item that was seen near no other is its own.
    """
    item_E, row_E = np.asarray(timelines.item_E, np.int64), timelines.row_E
    count_II = sparse.csr_matrix((num_items, num_items))
    for apart in range(1, reach + 1):
        left_P, right_P = item_E[:-apart], item_E[apart:]
        near_P = (row_E[:-apart] == row_E[apart:]) & (left_P != right_P)
        pairs = (np.ones(int(near_P.sum())), (left_P[near_P], right_P[near_P]))
        count_II = count_II + sparse.csr_matrix(pairs, shape=(num_items, num_items))
    count_II = (count_II + count_II.T).tocsr()
    scale_I = 1 / np.sqrt(np.bincount(item_E, minlength=num_items).clip(1))
    count_II.data *= np.repeat(scale_I, np.diff(count_II.indptr)) * scale_I[count_II.indices]
    best_I = np.asarray(count_II.argmax(axis=1)).ravel()
    return np.where(np.diff(count_II.indptr) > 0, best_I, np.arange(num_items))
