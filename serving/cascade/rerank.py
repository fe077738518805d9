"""The rerankers of the bundle's config, applied to the scored candidates of one question. Shapes: K = candidates, N <= K."""

from dataclasses import fields

import numpy as np

from recsys.columns import UNKNOWN_ID
from recsys.rerank import Slate
from serving.bundle.bundle import Array, Bundle
from serving.cascade.score import Scored


def rerank(bundle: Bundle, scored: Scored, k: int, rng: np.random.Generator) -> tuple[Scored, Array | None]:
    """The candidates in their new order, and the chance with which each came to its place, given the ones above it; None where
    chance had no part. What only fills up a generator's candidates stays behind, as it was.
    """
    chain = bundle.facts.serving.rerank
    if not chain:
        return scored, None
    own = len(scored.fill_K) - int(np.count_nonzero(scored.fill_K))  # what fills up stands last
    slate, place_K = _slate(bundle, scored, own), np.arange(len(scored.item_K))
    propensity_K = None
    for step, reranker in enumerate(chain, start=1):
        found = reranker(slate, k, rng)
        place_K[:own] = place_K[found.place_N]
        if step < len(chain):
            slate = slate.take(found.place_N)
        if found.propensity_N is not None:  # of the last one, which the config sees to
            propensity_K = np.ones(len(place_K))
            propensity_K[:own] = found.propensity_N
    return _taken(scored, place_K), propensity_K


def _taken(scored: Scored, place_K: Array) -> Scored:
    names = [each.name for each in fields(scored)]
    if scored.said_KT is scored.probability_KT:
        names.remove("said_KT")
    return Scored(**{name: getattr(scored, name)[place_K] for name in names})


def _slate(bundle: Bundle, scored: Scored, own: int) -> Slate:
    """Vectors and categories are looked up only where a reranker reads them.

    Where the ranker saw one candidate at most (`serving.ranked: 1`), the order is retrieval's, and so is the value.
    """
    facts, chain = bundle.facts, bundle.facts.serving.rerank
    item_K, value_K, probability_KT = scored.item_K[:own], scored.value_K[:own], scored.probability_KT[:own]
    ranked_K = scored.ranked_K[:own]
    if facts.tasks and np.count_nonzero(ranked_K) > 1:
        weight_T = bundle.value.slope(probability_KT if ranked_K.all() else probability_KT[ranked_K])
    else:
        value_K, probability_KT, weight_T = scored.score_K[:own], np.empty((own, 0), np.float32), np.empty(0)
    categories = any(each.reads_categories for each in chain)
    return Slate(
        item_K,
        value_K,
        probability_KT,
        weight_T,
        bundle.unit_vectors(item_K) if any(each.reads_vectors for each in chain) else np.empty((own, 0), np.float32),
        bundle.category_I[item_K] if categories else np.full(own, UNKNOWN_ID, np.int32),
        bundle.category_codes if categories else {},
    )
