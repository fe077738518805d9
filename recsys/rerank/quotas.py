"""Quotas: how many of the first k items may, and must, be of a category. Shapes: K = candidates, N = places, C = categories."""

import math
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from recsys.columns import FIRST_ID
from recsys.rerank.reranker import RerankerSpec
from recsys.rerank.slate import Reranked, Slate, with_rest

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Quotas(RerankerSpec):
    """The best k items that keep every category between its bounds, in the order in which they stood.

    With n_c the items of category c among the first k: lower_c <= n_c <= upper_c. An item has one category (its first one), so
    the bounds are those of a partition matroid, where the greedy choice is the best sum of values: first the best lower_c of
    each category, then the best that no upper bound forbids. Edmonds 1971, https://doi.org/10.1007/BF01584082. A share s asks
    for between floor(s k) and ceil(s k) items, the quota rule of apportionment (Balinski and Young 1975,
    https://doi.org/10.2307/2318729).

    What cannot be kept gives way in this order: lower bounds that need more than k places together (the best candidates first),
    lower bounds of a category that has too few candidates, and upper bounds where else the list would be short.
    """

    kind: Literal["quotas"] = "quotas"
    reads_categories: ClassVar[bool] = True
    at_most_each: int | None = Field(3, ge=1, description="of any one category; null: no limit. Items without one have none")
    at_most: dict[str, Count] = Field(default_factory=dict, description="category -> items, in place of at_most_each")
    at_least: dict[str, Count] = Field(default_factory=dict, description="category -> items")
    shares: dict[str, Share] = Field(default_factory=dict, description="category -> share of the k places, to within one item")

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        for name, least in self.at_least.items():
            most = self.at_most.get(name, self.at_most_each)
            if most is not None and least > most:
                where = "at_most" if name in self.at_most else "at_most_each"
                raise ValueError(f"quotas ask for at_least {least} of {name!r} and {where} {most}: raise {where}")
        if twice := [name for name in self.shares if name in self.at_most or name in self.at_least]:
            raise ValueError(f"quotas give {twice[0]!r} a share and a number: name it once")
        if (total := sum(self.shares.values())) > 1 + 1e-9:
            raise ValueError(f"quotas.shares add up to {total:g}, and there is one list: lower them to at most 1")
        return self

    @property
    def named_categories(self) -> tuple[str, ...]:
        return (*self.at_most, *self.at_least, *self.shares)

    def __call__(self, slate: Slate, k: int, rng: np.random.Generator) -> Reranked:
        count = len(slate.item_K)
        places = min(k, count)
        code_C, category_K = np.unique(slate.category_K, return_inverse=True)
        lower_C, upper_C = self._bounds(slate, code_C, places)
        before_K = _alike_before(category_K, len(code_C))
        needed_K, allowed_K = before_K < lower_C[category_K], before_K < upper_C[category_K]
        wanted_K = np.lexsort((np.arange(count), ~allowed_K, ~needed_K))  # needed, then allowed, then the others
        return Reranked(with_rest(np.sort(wanted_K[:places]), count))

    def _bounds(self, slate: Slate, code_C: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        most = k if self.at_most_each is None else self.at_most_each
        lower_C, upper_C = np.zeros(len(code_C), np.int64), np.where(code_C < FIRST_ID, k, most)
        bounds = {name: (0, upper) for name, upper in self.at_most.items()}
        bounds |= {name: (lower, self.at_most.get(name, most)) for name, lower in self.at_least.items()}
        # A share such as 0.3 of 10 is 3 exactly, whatever the product of floats says.
        exact = {name: round(share * k, 9) for name, share in self.shares.items()}
        bounds |= {name: (math.floor(share), math.ceil(share)) for name, share in exact.items()}
        for name, (lower, upper) in bounds.items():
            here_C = code_C == slate.code_of.get(name)
            lower_C[here_C], upper_C[here_C] = lower, upper
        return lower_C, upper_C


def _alike_before(category_K: np.ndarray, categories: int) -> np.ndarray:
    """How many candidates of the same category stand before each."""
    by_category_K = np.argsort(category_K, kind="stable")
    first_C = np.concatenate([[0], np.cumsum(np.bincount(category_K, minlength=categories))[:-1]]).astype(np.int64)
    before_K = np.empty(len(category_K), np.int64)
    before_K[by_category_K] = np.arange(len(category_K)) - first_C[category_K[by_category_K]]
    return before_K
