"""What lists are judged on beside accuracy, and what is needed for it.

Shapes: U = users judged, K = list length, I = rows of the item table, C = categories.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate.judged import Judged
from recsys.metrics.beyond import gini, novelty, popularity_lift, serendipity
from recsys.metrics.categories import categories_of, category_calibration, intra_list_diversity


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What surrounds the lists: the popularity and the categories of items, and what a popularity list would show."""

    train_count_I: np.ndarray
    usual_UK: np.ndarray  # each user's list of the most popular items
    has_IC: sp.csr_array | None  # the items' categories; None where items have none

    @classmethod
    def of(cls, data: Dataset, usual_UK: np.ndarray, category: str | None) -> Self:
        """`category` is the item feature that diversity and calibration read. Raises InputError where items do not have it."""
        known = [each["name"] for each in data.features if each["owner"] == "item"]
        if category is not None and category not in known:
            raise InputError(
                f"evaluation.category is {category!r}, which is no feature of the items: "
                f"choose among {', '.join(known) or 'none, since they have none'}"
            )
        return cls(data.train_count_I, usual_UK, None if category is None else categories_of(data.codes(category, "item")))

    def per_user(self, item_UK: np.ndarray, judged: Judged, k: int) -> dict[str, np.ndarray]:
        """The values at `k` that a user has on their own; NaN where somebody has none."""
        item_UK, usual_UK = item_UK[:, :k], self.usual_UK[:, :k]
        found = {
            f"novelty@{k}": novelty(item_UK, self.train_count_I),
            f"serendipity@{k}": serendipity(item_UK, judged.relevant, usual_UK),
        }
        if self.has_IC is not None:
            found[f"ILD@{k}"] = intra_list_diversity(item_UK, self.has_IC)
            found[f"category_calibration@{k}"] = category_calibration(item_UK, judged.history, self.has_IC)
        return found

    def of_catalogue(self, item_UK: np.ndarray, k: int) -> dict[str, float]:
        """How even the exposure of the whole catalogue is; NaN where that says nothing."""
        return {f"Gini@{k}": gini(item_UK[:, :k], len(self.train_count_I))}

    def of_group(self, item_UK: np.ndarray, judged: Judged, k: int) -> dict[str, float]:
        """What only a group of users has; NaN where nobody of them counts."""
        return {f"popularity_lift@{k}": popularity_lift(item_UK[:, :k], judged.history, self.train_count_I)}
