"""Propensity by popularity. Shapes: X = training examples, I = rows of the item table."""

from typing import Literal

import numpy as np
from pydantic import Field

from recsys.columns import ITEM
from recsys.dataset import Dataset
from recsys.debias.propensity import PropensitySpec


class Popularity(PropensitySpec):
    """(rows of the item / rows of the most frequent item) ** exponent: what is seen often was shown often.

    Saito et al. 2020, https://arxiv.org/abs/1909.03601, eq. 28, where the exponent is 0.5. Popular items also are better liked,
    so an exponent of 1 takes away more than the bias.
    """

    kind: Literal["popularity"] = "popularity"
    exponent: float = Field(0.5, ge=0, le=2, description="0: all items alike; 1: in proportion to the rows")

    def fit(self, dataset: Dataset, row_X: np.ndarray, task: str) -> np.ndarray:
        item_X = dataset.examples[ITEM][row_X]
        return self.of_items(np.bincount(item_X, minlength=dataset.num_items))[item_X]

    def of_items(self, count_I: np.ndarray) -> np.ndarray:
        """propensity_I from how often each item is in the log; an item that is not counts as one that is once."""
        return (np.maximum(count_I, 1) / max(1, count_I.max(initial=0))) ** self.exponent
