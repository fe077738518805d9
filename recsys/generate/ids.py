"""Semantic ids: every item as a sequence of codes, and no two alike. Shapes: I = rows of the item table, T = levels."""

from dataclasses import dataclass

import numpy as np

from recsys.columns import FIRST_ID

NO_CODE = -1


@dataclass(frozen=True)
class SemanticIds:
    """`code_IT`: 32-bit codes of every item, those of level t in [0, sizes[t]); the reserved rows below FIRST_ID have NO_CODE.

    Items and rows of codes are one to one.
    """

    code_IT: np.ndarray
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        known_IT = self.code_IT[FIRST_ID:]
        assert self.code_IT.shape[1] == len(self.sizes), "one size for each level"
        assert (known_IT >= 0).all(), "every item has an id"
        assert (known_IT < np.array(self.sizes)).all(), "codes are below the sizes of their levels"
        assert len(np.unique(known_IT, axis=0)) == len(known_IT), "no two items share an id"

    @property
    def num_items(self) -> int:
        """Rows, the reserved ones included."""
        return len(self.code_IT)

    @property
    def levels(self) -> int:
        return len(self.sizes)
