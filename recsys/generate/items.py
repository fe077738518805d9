"""What semantic ids are made from: the items of a dataset and, if there is one, a trained retriever's vectors of them.

Shapes: I = rows of the item table, D = width, N = items that are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.columns import FIRST_ID
from recsys.dataset import Dataset

State = dict[str, np.ndarray]  # what a fit leaves behind, by name


@dataclass(frozen=True)
class Items:
    """`retriever` reads `item_ID` of the trained retriever, the reserved rows included; called only where it is needed."""

    data: Dataset
    retriever: Callable[[], np.ndarray] | None = None

    @property
    def row_N(self) -> np.ndarray:
        """Every item's row, the reserved ones left out."""
        return np.arange(FIRST_ID, self.data.num_items)

    def names(self, row_N: np.ndarray, most: int = 3) -> str:
        """A few external ids, for a sentence."""
        shown = ", ".join(repr(self.data.item_ids[row]) for row in row_N[:most])
        return shown + (", ..." if len(row_N) > most else "")


def unit(vector_ND: np.ndarray) -> np.ndarray:
    """Each row at length 1; a row of zeros stays."""
    length_N = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    return (vector_ND / np.where(length_N > 0, length_N, 1)).astype(np.float32)
