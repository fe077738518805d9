"""Slates for tests. Shapes: K = candidates, T = tasks, D = dim."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.columns import FIRST_ID
from recsys.rerank import Slate

CATEGORIES = ("news", "films", "songs")


def slate(
    count: int,
    *,
    seed: int = 0,
    tasks: int = 3,
    weight_T: Sequence[float] = (1.0, 2.0, 4.0),
    distinct: int = 1000,
    **changed: Any,
) -> Slate:
    """Random candidates by descending value; probabilities are one of `distinct` numbers, so that few make ties."""
    rng = np.random.default_rng(seed)
    probability_KT = (rng.integers(distinct, size=(count, tasks)) / distinct).astype(np.float32)
    weights = np.array(weight_T[:tasks], np.float64)
    value_K = probability_KT @ weights if tasks else rng.normal(size=count)
    order_K = np.argsort(-value_K, kind="stable")
    vector_KD = rng.normal(size=(count, 4)).astype(np.float32)
    columns = {
        "item_K": FIRST_ID + rng.permutation(count),
        "value_K": value_K[order_K],
        "probability_KT": probability_KT[order_K],
        "weight_T": weights,
        "vector_KD": vector_KD / np.linalg.norm(vector_KD, axis=1, keepdims=True),
        "category_K": rng.integers(1, FIRST_ID + len(CATEGORIES), size=count).astype(np.int32),
        "code_of": {name: FIRST_ID + place for place, name in enumerate(CATEGORIES)},
    }
    return Slate(**(columns | changed))


def valued(value_K: Sequence[float], **changed: Any) -> Slate:
    """These values, and no tasks."""
    return slate(len(value_K), tasks=0, value_K=np.array(value_K), **changed)
