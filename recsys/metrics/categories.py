"""How varied lists are in a feature of the items, and how well they match the mix that a user has chosen so far.

A category is a code of the feature; the unknown code is one like any other, so an item without a value has the category
"unknown". Places without an item (0 or -1) and unknown items do not count.
Shapes: U = users, B = users of a chunk, K = places of a list, I = rows of the item table, C = categories, N = items of a
chunk's lists, E = entries of a sparse array, P = pairs of items of one list.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged

ALPHA = 0.01  # of the smoothing in `category_calibration`, as in the paper
CELLS = 2**21  # of a chunk: pairs of places, or events and places


def categories_of(codes: Jagged) -> sp.csr_array:
    """has_IC, 1 where the item has the category, from each item's codes; a code that is repeated counts once."""
    has_IC = sp.csr_array((np.ones(len(codes.item_E)), (codes.row_E, codes.item_E)))
    has_IC.resize(len(codes), has_IC.shape[1])
    has_IC.sum_duplicates()
    has_IC.data[:] = 1
    return has_IC


def intra_list_diversity(item_UK: np.ndarray, has_IC: sp.csr_array) -> np.ndarray:
    """Mean distance of two items of a list: diversity_U, 0 (all of the same categories) to 1 (no two share one).

    mean over pairs of 1 - |A and B| / |A or B|, A and B being the categories of the two items (Jaccard distance). Smyth and
    McClave 2001, https://doi.org/10.1007/3-540-44593-5_25; Ziegler et al. 2005, https://doi.org/10.1145/1060745.1060754, sum
    similarities over the pairs instead. NaN for a list of fewer than two items.
    """
    rows = max(1, CELLS // item_UK.shape[1] ** 2)
    return _in_chunks(len(item_UK), rows, lambda begin, end: _diversity(item_UK[begin:end], has_IC))


def category_calibration(item_UK: np.ndarray, history: Jagged, has_IC: sp.csr_array, alpha: float = ALPHA) -> np.ndarray:
    """How far the mix of categories in each list is from that of the user's history, in nats: 0 (the same) to 4.6.

    The most is -log(alpha), where the two share no category.
    KL(p, q~) = sum_c p(c) log(p(c) / q~(c)), q~ = (1 - alpha) q + alpha p; p(c) is the mean of p(c|i) over the user's history,
    q(c) the same over the list, and p(c|i) = 1 / |categories of i| for each of them. Steck 2018,
    https://doi.org/10.1145/3240323.3240372. Differs from the paper: all events and all places weigh the same. NaN for a user
    without a history or without a list.
    """
    weight_IC = sp.diags_array(1 / np.maximum(has_IC.sum(axis=1), 1)) @ has_IC
    mean_length = len(history.item_E) // max(1, len(history))
    rows = max(1, CELLS // (item_UK.shape[1] + mean_length))
    return _in_chunks(
        len(item_UK), rows, lambda begin, end: _divergence(item_UK[begin:end], history.slice(begin, end), weight_IC, alpha)
    )


def _diversity(item_BK: np.ndarray, has_IC: sp.csr_array) -> np.ndarray:
    row_N, place_N = np.nonzero(item_BK >= FIRST_ID)
    chosen_NC = has_IC[item_BK[row_N, place_N]]
    size_N = np.diff(chosen_NC.indptr)
    # Each user has columns of their own: items of two users share none, and the product holds the pairs of one list alone.
    key_E = np.repeat(row_N, size_N) * has_IC.shape[1] + chosen_NC.indices
    own, column_E = np.unique(key_E, return_inverse=True)
    own_NE = sp.csr_array((chosen_NC.data, column_E, chosen_NC.indptr), shape=(len(row_N), len(own)))
    shared_P = (own_NE @ own_NE.T).tocoo()
    first_P, second_P = shared_P.coords
    similarity_P = shared_P.data / (size_N[first_P] + size_N[second_P] - shared_P.data)
    length_B = np.bincount(row_N, minlength=len(item_BK))
    pairs_B = length_B * (length_B - 1.0)
    pair_P = first_P != second_P
    similar_B = np.bincount(row_N[first_P[pair_P]], weights=similarity_P[pair_P], minlength=len(item_BK))
    similar_B = np.divide(similar_B, pairs_B, out=np.full(len(item_BK), np.nan), where=pairs_B > 0)
    return np.maximum(1 - similar_B, 0)


def _divergence(item_BK: np.ndarray, history: Jagged, weight_IC: sp.csr_array, alpha: float) -> np.ndarray:
    row_N, place_N = np.nonzero(item_BK >= FIRST_ID)
    real_E = history.item_E >= FIRST_ID
    p_BC, has_p_B = _mix(history.row_E[real_E], history.item_E[real_E], len(item_BK), weight_IC)
    q_BC, has_q_B = _mix(row_N, item_BK[row_N, place_N], len(item_BK), weight_IC)
    # p log(p / q~) is p log(1 / alpha) where q is 0, so only the categories that both have are looked at one by one.
    p_both, q_both = p_BC.multiply(q_BC != 0).tocsr(), q_BC.multiply(p_BC != 0).tocsr()
    for each in (p_both, q_both):
        each.sort_indices()
    p, q = p_both.data, q_both.data
    both_BC = sp.csr_array((p * np.log(alpha * p / ((1 - alpha) * q + alpha * p)), p_both.indices, p_both.indptr), p_both.shape)
    found_B = both_BC.sum(axis=1) - np.log(alpha)
    return np.where(has_p_B & has_q_B, np.maximum(found_B, 0), np.nan)


def _mix(row_E: np.ndarray, item_E: np.ndarray, rows: int, weight_IC: sp.csr_array) -> tuple[sp.csr_array, np.ndarray]:
    """mix_BC, shares that sum to 1, and who has any."""
    length_B = np.bincount(row_E, minlength=rows)
    times_BI = sp.csr_array((1 / length_B[row_E], (row_E, item_E)), shape=(rows, weight_IC.shape[0]))
    return (times_BI @ weight_IC).tocsr(), length_B > 0


def _in_chunks(users: int, rows: int, measure: Callable[[int, int], np.ndarray]) -> np.ndarray:
    parts = [measure(begin, min(begin + rows, users)) for begin in range(0, users, rows)]
    return np.concatenate([np.empty(0), *parts])
