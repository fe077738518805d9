"""What a reranker reads and gives. Shapes: K = candidates of one request, best first; D = dim; T = tasks; N = places."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Slate:
    """The candidates of one request in the order in which they stand."""

    item_K: np.ndarray  # dense ids
    value_K: np.ndarray  # what they are ordered by; an earlier reranker may have broken that order
    probability_KT: np.ndarray  # of each task, NaN where the ranker did not see the item; T = 0 where there is no ranker
    weight_T: np.ndarray  # what each task counts in the value
    vector_KD: np.ndarray  # of the items, of length 1; D = 0 where no reranker reads them
    category_K: np.ndarray  # code of the item's category, UNKNOWN_ID where it has none; so everywhere where none is read
    code_of: Mapping[str, int] = field(default_factory=dict)  # category -> its code

    def take(self, place_N: np.ndarray) -> "Slate":
        """These candidates, in this order."""
        columns = ("item_K", "value_K", "probability_KT", "vector_KD", "category_K")
        return replace(self, **{name: getattr(self, name)[place_N] for name in columns})


@dataclass(frozen=True)
class Reranked:
    """`place_N`: all candidates in their new order, each once; what matters are the first k, behind which the others stay as
    they were. `propensity_N`: the chance with which each came to its place, given the ones before it; 1 where that is certain,
    None where chance has no part in the list at all."""

    place_N: np.ndarray
    propensity_N: np.ndarray | None = None


def with_rest(chosen_N: np.ndarray, count: int) -> np.ndarray:
    """The chosen places, and behind them the others out of `count` in their old order."""
    left_K = np.ones(count, bool)
    left_K[chosen_N] = False
    return np.concatenate([chosen_N, np.flatnonzero(left_K)])
