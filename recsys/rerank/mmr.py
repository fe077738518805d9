"""Maximal marginal relevance: value against likeness to what stands above. Shapes: K = candidates, D = dim, N = places."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys.rerank.reranker import RerankerSpec
from recsys.rerank.slate import Reranked, Slate, with_rest


class MMR(RerankerSpec):
    """Fill each place with the candidate of the largest trade_off * value - (1 - trade_off) * likeness.

    Likeness is the largest cosine with an item that stands above. Carbonell and Goldstein 1998,
    https://doi.org/10.1145/290941.291025, formula (1). Differs from the paper: values, which may have any scale, are stretched
    to [0, 1] over the candidates, (v - min) / (max - min), and a negative cosine counts as 0, so that both terms lie in [0, 1]
    and opposites are no better than strangers.

    Costs O(k K D): one product of the candidates with the item chosen last for each place.
    """

    kind: Literal["mmr"] = "mmr"
    reads_vectors: ClassVar[bool] = True
    trade_off: float = Field(0.7, ge=0, le=1, description="1: by value alone; 0: by unlikeness alone")

    def __call__(self, slate: Slate, k: int, rng: np.random.Generator) -> Reranked:
        count = len(slate.item_K)
        value_K = self.trade_off * unit_range(slate.value_K)
        weighed_KD = slate.vector_KD * np.float32(1 - self.trade_off)
        like_K = np.zeros(count, slate.vector_KD.dtype)  # times its weight
        chosen, best = np.empty(min(k, count), np.int64), 0
        for place in range(len(chosen)):
            if place:
                np.maximum(like_K, weighed_KD @ slate.vector_KD[best], out=like_K)
            best = int((value_K - like_K).argmax())  # the first of equals
            chosen[place], value_K[best] = best, -np.inf
        return Reranked(with_rest(chosen, count))


def unit_range(value_K: np.ndarray) -> np.ndarray:
    """Stretched to [0, 1]; 0 where all are equal."""
    if not len(value_K):
        return value_K.astype(np.float64)
    low, high = float(value_K.min()), float(value_K.max())
    return (value_K.astype(np.float64) - low) / ((high - low) or 1.0)
