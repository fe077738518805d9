"""The items that may be recommended: from retrieval, or from the generation graph, filled up by the former.

B = queries, E = excluded items, K = candidates, R = queries that are short of candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.columns import PADDING_ID
from serving.bundle.bundle import Array, Bundle


@dataclass(frozen=True)
class Candidates:
    """Best first, those of the first graph before those that fill up; an empty place has PADDING_ID and -inf."""

    item_BK: Array
    score_BK: Array  # of the graph that found the item: two graphs' scores say nothing about each other
    fill_BK: Array  # whether the retrieval graph filled the place because the generation graph had no more


def find(bundle: Bundle, given: Mapping[str, Array], k_B: Array) -> Candidates:
    """`given`: what the graphs read. At least `k_B` candidates of each query where the catalogue has as many."""
    item_BK, score_BK = (bundle.generation or bundle.retrieval)(given)
    if bundle.generation is not None:  # its search reads `exclude` alone: what else may not be shown is taken out after it
        bias_BI = np.broadcast_to(given["bias"], (len(item_BK), given["bias"].shape[1]))
        score_BK = score_BK + np.take_along_axis(bias_BI, item_BK, axis=1)
    found_BK, no_fill_BK = np.isfinite(score_BK), np.zeros(item_BK.shape, dtype=bool)
    item_BK = np.where(found_BK, item_BK, PADDING_ID)
    if bundle.generation is None or not (missing_B := np.maximum(k_B - found_BK.sum(axis=1), 0)).any():
        return Candidates(item_BK, score_BK, no_fill_BK)
    short_R, width = np.flatnonzero(missing_B), missing_B.max()
    rest = {name: values if len(values) == 1 else values[short_R] for name, values in given.items()}
    rest["exclude"] = np.concatenate([rest["exclude"], item_BK[short_R]], axis=1)
    item_RK, score_RK = (found[:, :width] for found in bundle.retrieval(rest))
    wanted_RK = (np.arange(item_RK.shape[1]) < missing_B[short_R, None]) & np.isfinite(score_RK)
    more_item_BK = np.full((len(item_BK), item_RK.shape[1]), PADDING_ID, dtype=item_BK.dtype)
    more_score_BK = np.full(more_item_BK.shape, -np.inf, dtype=score_BK.dtype)
    more_item_BK[short_R] = np.where(wanted_RK, item_RK, PADDING_ID)
    more_score_BK[short_R] = np.where(wanted_RK, score_RK, -np.inf)
    return Candidates(
        np.concatenate([item_BK, more_item_BK], axis=1),
        np.concatenate([score_BK, more_score_BK], axis=1),
        np.concatenate([no_fill_BK, np.isfinite(more_score_BK)], axis=1),
    )


def order(candidates: Candidates, value_BK: Array) -> Array:
    """place_BK by descending value, those that fill up after the others, empty places last; ties keep their order."""
    empty_BK = np.isneginf(candidates.score_BK)
    return np.lexsort((-value_BK, candidates.fill_BK, empty_BK), axis=1)
