"""How good given items are for a user. Shapes: C = items asked about, K = items at once, T = tasks."""

import dataclasses
import logging
from typing import Literal

import numpy as np

from recsys.columns import FIRST_ID
from serving.answers import Flag, Item, Ranked
from serving.bundle.bundle import Array, Bundle
from serving.cascade.asked import Asked, dense_items
from serving.cascade.candidates import find
from serving.cascade.compensate import compensated
from serving.cascade.probabilities import padded, probabilities
from serving.catalogue.shelf import only
from serving.schema import RankQuery

logger = logging.getLogger("recsys.serving")


def rank(
    bundle: Bundle, query: RankQuery, asked: Asked, *, request_id: str, arm: Literal["live", "canary", "pinned"]
) -> Ranked:
    """The items by falling value of the formula, or by the retrieval score where there is no ranker; each once.

    Where the model fails they stand in the order of their popularity, with score 0, and the flag says so.
    """
    rows_C, unknown = dense_items(bundle, list(dict.fromkeys(query.items)))
    item_C = rows_C[rows_C >= FIRST_ID]
    flags: list[Flag] = list(asked.flags)
    try:
        value_C, probability_CT = _values(bundle, asked, item_C)
    except Exception:
        logger.exception("the model failed")
        flags.append("model_failed")
        value_C, probability_CT = np.zeros(len(item_C)), np.zeros((len(item_C), 0))
        item_C = _by_popularity(bundle, item_C)
    order_C = np.argsort(-value_C, kind="stable")
    columns = (item_C[order_C].tolist(), value_C[order_C].tolist(), probability_CT[order_C].tolist())
    items = [
        Item(
            item_id=bundle.item_id(item),
            title=bundle.title(item),
            score=value,
            retrieval_score=value if bundle.ranking is None and "model_failed" not in flags else None,
            source="caller",
            tasks=dict(zip(bundle.facts.tasks, probability_T, strict=False)),
            reason="asked for",
        )
        for item, value, probability_T in zip(*columns, strict=True)
    ]
    return Ranked(
        request_id=request_id,
        items=items,
        flags=flags,
        unknown_items=list(dict.fromkeys(asked.unknown_items + unknown)),
        model=bundle.name,
        version=bundle.version,
        arm=arm,
    )


def _values(bundle: Bundle, asked: Asked, item_C: Array) -> tuple[Array, Array]:
    """value_C and probability_CT, as many items at a time as the bundle takes candidates, which bounds the memory."""
    size = bundle.facts.num_candidates
    parts = [item_C[start : start + size] for start in range(0, len(item_C), size)]
    if not parts:
        return np.zeros(0), np.zeros((0, len(bundle.facts.tasks)), np.float32)
    if bundle.ranking is None:
        return np.concatenate([_retrieval_scores(bundle, asked, part_K) for part_K in parts]), np.zeros((len(item_C), 0))
    probability_CT = np.concatenate(
        [compensated([asked], part_K[None], probabilities(bundle, [asked], part_K[None]))[0] for part_K in parts]
    )
    return bundle.value(probability_CT), probability_CT


def _retrieval_scores(bundle: Bundle, asked: Asked, item_K: Array) -> Array:
    """score_K, from a retrieval that may find no other items than these."""
    history_1L, length_1 = padded([asked.history_L])
    given = {"history": history_1L, "length": length_1, "exclude": np.zeros((1, 1), np.int64)}
    given["bias"] = only(bundle.no_bias_1I, item_K)
    if bundle.reads_time:
        given["time"], _ = padded([asked.time_M], columns=history_1L.shape[1] + 1)
    found = find(dataclasses.replace(bundle, generation=None), given, np.array([len(item_K)]))
    there_K = np.isfinite(found.score_BK[0])
    score = dict(zip(found.item_BK[0, there_K].tolist(), found.score_BK[0, there_K].tolist(), strict=True))
    return np.array([score[item] for item in item_K.tolist()])


def _by_popularity(bundle: Bundle, item_C: Array) -> Array:
    """The popular ones first; the others after them, as they stand."""
    place = {item: place for place, item in enumerate(bundle.popular_P.tolist())}
    place_C = np.array([place.get(item, len(place)) for item in item_C.tolist()])
    by_place_C: Array = item_C[np.argsort(place_C, kind="stable")]
    return by_place_C
