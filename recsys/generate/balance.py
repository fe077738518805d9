"""Clusters of nearly equal sizes around given centroids. Shapes: N = vectors, K = centroids."""

import numpy as np


def bounds(vectors: int, centroids: int) -> tuple[int, int]:
    """The fewest and the most vectors of a cluster: one less and one more than an equal share, rounded down."""
    share = vectors // centroids
    return max(1, share - 1), share + 1


def balanced(distance_NK: np.ndarray) -> np.ndarray:
    """code_N, every cluster's size within `bounds`. There are at least as many vectors as centroids."""
    assert len(distance_NK) >= distance_NK.shape[1], "a centroid for each vector at most"
    fewest, most = bounds(*distance_NK.shape)
    return _fill(distance_NK, _accept(distance_NK, most), fewest)


def _accept(distance_NK: np.ndarray, most: int) -> np.ndarray:
    """Every vector asks its nearest centroid, a full one keeps the nearest who asked, the others ask the next that has room.

    Deferred acceptance (Gale and Shapley 1962, https://doi.org/10.2307/2312726); where no distances are equal, the outcome
    is that of taking all pairs by ascending distance. Of equally near vectors the first stays.
    """
    rows, centroids = np.arange(len(distance_NK)), distance_NK.shape[1]
    worst_K, last_K = np.full(centroids, np.inf), np.full(centroids, len(rows))  # of those that a full cluster keeps
    code_N = distance_NK.argmin(1)
    while True:
        order = np.lexsort((rows, distance_NK[rows, code_N], code_N))
        in_order = code_N[order]
        rank = np.arange(len(order)) - np.searchsorted(in_order, in_order)
        refused, marginal = order[rank >= most], order[rank == most - 1]
        if not len(refused):
            return code_N
        worst_K[code_N[marginal]], last_K[code_N[marginal]] = distance_NK[marginal, code_N[marginal]], marginal
        asking = distance_NK[refused]
        welcome = (asking < worst_K) | ((asking == worst_K) & (refused[:, None] < last_K))
        code_N[refused] = np.where(welcome, asking, np.inf).argmin(1)


def _fill(distance_NK: np.ndarray, code_N: np.ndarray, fewest: int) -> np.ndarray:
    """Clusters below `fewest` take, one by one, the vector that loses least, from clusters that can spare one."""
    size_K = np.bincount(code_N, minlength=distance_NK.shape[1])
    own_N = distance_NK[np.arange(len(code_N)), code_N]
    for short in np.flatnonzero(size_K < fewest):
        while size_K[short] < fewest:
            loss_N = np.where(size_K[code_N] > fewest, distance_NK[:, short] - own_N, np.inf)
            taken = int(loss_N.argmin())
            size_K[code_N[taken]] -= 1
            size_K[short] += 1
            code_N[taken], own_N[taken] = short, distance_NK[taken, short]
    return code_N
