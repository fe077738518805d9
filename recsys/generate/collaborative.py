"""Item vectors that a trained retriever has learned from who took what. Shapes: I = rows of the item table, D = width."""

from typing import ClassVar, Literal

import numpy as np

from recsys.generate.items import Items, State, unit
from recsys.spec import Spec


class Collaborative(Spec):
    """The item vectors of the run's retriever, at length 1. An item that it never met has content only, or nothing.

    As LETTER (Wang et al. 2024, https://arxiv.org/abs/2405.07314) and others bring collaborative signals into ids. Differs
    from the paper: the vectors themselves are cut into codes, where the paper aligns codes of content with them.
    """

    kind: Literal["collaborative"] = "collaborative"
    reads_retriever: ClassVar[bool] = True

    def fit(self, items: Items, seed: int) -> State:
        """Nothing: the retriever is trained already."""
        return {}

    def __call__(self, items: Items, state: State) -> np.ndarray:
        """vector_ID of length 1; zeros for an item of which the retriever knows nothing, and for the reserved rows."""
        assert items.retriever is not None, "whoever reads the config hands in the retriever's vectors"
        return unit(items.retriever())
