"""Which items are most like one: the cosine of the items' vectors, exact. Shapes: I = rows of the item table, D = dim."""

import reprlib

import numpy as np

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from serving.answers import Item, Similar
from serving.bundle.bundle import Array, Bundle
from serving.cascade.asked import check_k, dense_items
from serving.cascade.reason import name
from serving.schema import SimilarQuery

BLOCK = 65_536  # items at a time: bounds what a table of half precision takes as float32


def similar(bundle: Bundle, query: SimilarQuery, bias_1I: Array) -> Similar:
    """At most k items, best first. Raises InputError for an item that the bundle does not have, or too large a k.

    `bias_1I`: 0, or -inf for items that are not to be named, such as those not sold now.
    """
    check_k(bundle, query)
    item = bundle.item_index.find(query.item_id)
    if item < FIRST_ID:
        raise InputError(
            f"item_id is {reprlib.repr(query.item_id)}: this bundle does not have it; send the id of an item it has"
        )
    excluded_E, _ = dense_items(bundle, query.exclude)
    score_I = _cosines(bundle, item) + bias_1I[0]
    score_I[:FIRST_ID], score_I[item], score_I[excluded_E] = -np.inf, -np.inf, -np.inf
    k = min(query.k, len(score_I))
    best_K = np.argpartition(-score_I, k - 1)[:k]
    best_K = best_K[np.lexsort((best_K, -score_I[best_K]))]
    best_K = best_K[np.isfinite(score_I[best_K])]
    why = f"like {name(bundle, item)}"
    items = [
        Item(
            item_id=bundle.item_id(row), title=bundle.title(row), score=score, retrieval_score=None, source="retrieval",
            tasks={}, reason=why,
        )
        for row, score in zip(best_K.tolist(), score_I[best_K].tolist(), strict=True)
    ]  # fmt: skip
    return Similar(items=items, model=bundle.name, version=bundle.version)


def _cosines(bundle: Bundle, item: int) -> Array:
    unit_D = np.asarray(bundle.vector_ID[item], np.float32) / bundle.norm_I[item]
    blocks = (bundle.vector_ID[start : start + BLOCK] for start in range(0, len(bundle.vector_ID), BLOCK))
    cosine_I: Array = np.concatenate([np.asarray(block, np.float32) @ unit_D for block in blocks]) / bundle.norm_I
    return cosine_I
