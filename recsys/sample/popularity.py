"""Draw items by how often training has them. Shapes: I = rows of the item table."""

from typing import Literal

import numpy as np
from pydantic import Field

from recsys.columns import FIRST_ID
from recsys.sample.table import ItemTable
from recsys.spec import Spec


class Popularity(Spec):
    """p_I proportional to (count + smoothing) ** exponent over real items, zero for padding and unknown.

    Exponent 1 is the distribution of the training events, 0.75 that of word2vec, Mikolov et al. 2013,
    https://arxiv.org/abs/1310.4546, and 0 the uniform one. Differs from word2vec: unless `smoothing` is 0, an item that
    training never had can be drawn too, so that no item's score goes untrained.
    """

    kind: Literal["popularity"] = "popularity"
    exponent: float = Field(0.75, ge=0, le=2)
    smoothing: float = Field(1.0, ge=0, description="added to every real item's count")

    def __call__(self, train_count_I: np.ndarray) -> ItemTable:
        """The distribution of these counts; uniform where all of them are zero."""
        assert len(train_count_I) > FIRST_ID, f"{len(train_count_I)} rows hold no real item"
        weight_I = (train_count_I + self.smoothing).astype(np.float64)
        if not weight_I[FIRST_ID:].any():
            weight_I[:] = 1
        mass_I = np.where(weight_I > 0, weight_I**self.exponent, 0)
        mass_I[:FIRST_ID] = 0
        return ItemTable(mass_I / mass_I.sum())
