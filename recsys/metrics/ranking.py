"""Ranking metrics of each user, from the top of a list and the set of relevant items.

Every metric is returned per user, so that means, segments and paired intervals are taken in one place by the caller.
Shapes: U = users, K = places of a list, R = relevant (user, item) pairs.
"""

from collections.abc import Sequence

import numpy as np

from recsys.columns import FIRST_ID, PADDING_ID
from recsys.jagged import Jagged
from recsys.metrics.runs_of_scores import run_starts


def rank_metrics(item_UK: np.ndarray, relevant: Jagged, ks: Sequence[int]) -> dict[str, np.ndarray]:
    """HR, NDCG, MAP, MRR, Recall and Precision at each of `ks`: "NDCG@10" -> one float64 per user.

    item_UK holds the recommended ids, best first; 0 or -1 fills a list that is short. Padding and unknown are never a hit,
    so a target outside the vocabulary counts as missed. An item that `relevant` repeats for a user counts once. A user
    without relevant items has NaN in every metric: the caller drops such users and says how many.

    With hit_j in {0, 1} at place j = 1..K and n distinct relevant items:

        HR        = 1 if any hit_j, else 0
        Precision = sum_j hit_j / K                             (K also where the list is short)
        Recall    = sum_j hit_j / n
        MRR       = 1 / (place of the first hit), 0 without one
        MAP       = sum_j hit_j Precision@j / min(n, K)          (1 for a list that could not be better)
        NDCG      = sum_j hit_j / log2(j + 1), over the same sum of an ideal list, which has hits at j = 1..min(n, K)

    MAP is each user's average precision; the mean is the caller's. With min(n, K) and not n below, a user with more relevant
    items than places can reach 1, as in NDCG. Values of tools that divide by n are min(n, K) / n times these.
    NDCG: Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418, with binary gain. MRR: Voorhees, TREC-8, 1999.
    Differs from the paper: the first two places of the original DCG are not discounted; here place 2 is, as is now usual.
    """
    width = item_UK.shape[1]
    if bad := [k for k in ks if not 1 <= k <= width]:
        raise ValueError(f"cannot measure at K={bad[0]}: the lists have {width} places")

    hit_UK, count_U = hits(item_UK, relevant)
    place_K = np.arange(1, width + 1)
    discount_K = 1 / np.log2(place_K + 1)
    hits_UK = hit_UK.cumsum(1)
    gain_UK = (hit_UK * discount_K).cumsum(1)
    reciprocal_UK = np.maximum.accumulate(hit_UK / place_K, axis=1)
    precision_UK = np.cumsum(hit_UK * (hits_UK / place_K), axis=1)
    ideal_K = discount_K.cumsum()

    metrics = {}
    for k in ks:
        hits_U = hits_UK[:, k - 1]
        metrics[f"HR@{k}"] = (hits_U > 0).astype(np.float64)
        metrics[f"NDCG@{k}"] = gain_UK[:, k - 1] / ideal_K[np.clip(count_U, 1, k) - 1]
        metrics[f"MAP@{k}"] = precision_UK[:, k - 1] / np.clip(count_U, 1, k)
        metrics[f"MRR@{k}"] = reciprocal_UK[:, k - 1]
        metrics[f"Recall@{k}"] = hits_U / np.maximum(count_U, 1)
        metrics[f"Precision@{k}"] = hits_U / k
    return {name: np.where(count_U > 0, value_U, np.nan) for name, value_U in metrics.items()}


def coverage(item_UK: np.ndarray, num_items: int) -> float:
    """Share of the catalogue that is in at least one list.

    `num_items` counts the rows of the item table; its padding and unknown rows are not part of the catalogue.
    Ge, Delgado-Battenfeld and Jannach 2010, "catalog coverage", https://doi.org/10.1145/1864708.1864761.
    """
    shown = np.flatnonzero(np.bincount(item_UK[item_UK >= FIRST_ID]))
    assert num_items > FIRST_ID, f"num_items={num_items} leaves no catalogue"
    assert shown.size == 0 or shown[-1] < num_items, f"item {shown[-1]} is not among {num_items} items"
    return shown.size / (num_items - FIRST_ID)


def hits(item_UK: np.ndarray, relevant: Jagged) -> tuple[np.ndarray, np.ndarray]:
    """hit_UK, and the number of distinct relevant items of each user."""
    assert len(item_UK) == len(relevant), f"{len(item_UK)} lists for {len(relevant)} users"
    assert (relevant.item_E > PADDING_ID).all(), "padding cannot be relevant"
    real_UK = item_UK >= FIRST_ID
    ordered_UK = np.sort(item_UK, axis=1)
    repeated_UK = (ordered_UK[:, 1:] == ordered_UK[:, :-1]) & (ordered_UK[:, 1:] >= FIRST_ID)
    if repeated_UK.any():
        user, place = np.argwhere(repeated_UK)[0]
        raise ValueError(f"the list of row {user} repeats item {ordered_UK[user, place]}: a repeated item would count twice")

    # One integer per (user, item) turns membership into a single search over sorted keys.
    stride = 1 + max(item_UK.max(initial=0), relevant.item_E.max(initial=0)).astype(np.int64)
    key_R = np.sort(relevant.row_E * stride + relevant.item_E)
    relevant_R = key_R[run_starts(key_R)]
    key_UK = np.arange(len(item_UK))[:, None] * stride + item_UK
    count_U = np.bincount(relevant_R // stride, minlength=len(item_UK))
    return among(key_UK, relevant_R) & real_UK, count_U


def among(key: np.ndarray, sorted_N: np.ndarray) -> np.ndarray:
    """Whether each key is in `sorted_N`. `numpy.isin` hashes integers, and keys like these collide: seconds where this takes
    milliseconds."""
    if not len(sorted_N):
        return np.zeros(key.shape, bool)
    place = np.minimum(np.searchsorted(sorted_N, key), len(sorted_N) - 1)
    return sorted_N[place] == key
