"""What every member of the family is, and what a chain of them has to keep to."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar

import numpy as np

from recsys.errors import InputError
from recsys.rerank.slate import Reranked, Slate
from recsys.spec import Spec


class RerankerSpec(Spec, ABC):
    """A subclass adds `kind` and the call."""

    kind: str
    reads_vectors: ClassVar[bool] = False
    reads_categories: ClassVar[bool] = False
    draws: ClassVar[bool] = False  # whether chance decides who stands where: such a list has propensities

    @property
    def named_categories(self) -> tuple[str, ...]:
        """The categories that the settings name."""
        return ()

    @abstractmethod
    def __call__(self, slate: Slate, k: int, rng: np.random.Generator) -> Reranked:
        """A new order whose first k places are shown. Equal candidates keep their order, and the slate is not changed."""


def check_chain(rerankers: Sequence[RerankerSpec]) -> None:
    """Raises ValueError where a reranker stands behind one that draws: its chances would be those of a list nobody sees."""
    for place, each in enumerate(rerankers[:-1]):
        if each.draws:
            kind, after = each.kind, rerankers[place + 1].kind
            raise ValueError(
                f"serving.rerank has {after} after {kind}, and the chances that {kind} logs must be those of the list that is "
                f"shown: put {kind} last, once"
            )


def check_categories(rerankers: Sequence[RerankerSpec], feature: str | None, values: Collection[str]) -> None:
    """Raises InputError where rerankers read categories that the items do not have. `values`: those of the item feature."""
    for each in rerankers:
        kind = each.kind
        if each.reads_categories and feature is None:
            raise InputError(
                f"serving.rerank {kind} reads a category, and items have no feature: name one in data.items.features"
            )
        if unknown := [name for name in each.named_categories if name not in values]:
            raise InputError(
                f"serving.rerank {kind} names {unknown[0]!r}, which no item has as its {feature}: choose from "
                f"{', '.join(sorted(values)[:20])}"
            )
