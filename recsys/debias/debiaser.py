"""What every debiaser of the ranker is. Shapes: X = training examples."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from torch import nn

from recsys.debias.propensities import Propensity
from recsys.spec import Spec


class DebiasSpec(Spec):
    """A subclass adds `kind` and `build`, and says what its module wants to find in Rows.

    The module is called once or more in a step and keeps nothing from one call to the next; see Estimate for its answer.
    """

    reads_pairs: ClassVar[bool] = False
    only_classes: ClassVar[bool] = False  # whether every label has to be 0 or 1

    @property
    def pairs_per_row(self) -> int:
        """How many pairs are drawn for each row of the batch, where the spec reads pairs."""
        return 1

    @property
    def arm(self) -> str | None:
        """The label, none of the ranker's tasks, that says the arm of a row."""
        return None

    @property
    def source(self) -> Propensity | None:
        """Whose propensities the rows come with."""
        return None

    def floor(self, propensity_X: np.ndarray) -> float:
        """What smaller propensities of training rows are raised to: `Rows.floor`."""
        return 0.0

    def scale(self, propensity_X: np.ndarray) -> float:
        """From the propensities of all training rows, after the floor: `Rows.scale`."""
        return 1.0

    @abstractmethod
    def build(self, width: int, tasks: int) -> nn.Module:
        """A module whose `forward(rows: Rows)` returns an Estimate; `width` is V of Rows."""

    @classmethod
    def neutral(cls) -> "DebiasSpec | None":
        """The settings under which the estimate is the plain loss, where there are such."""
        return None
