"""What every source of propensities is. Shapes: X = training examples."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from recsys.dataset import Dataset
from recsys.spec import Spec


class PropensitySpec(Spec):
    """A subclass adds `kind` and `fit`. A propensity is the chance that a user's row of the log is of this item; only ratios
    matter, so it may miss a common factor. Weighed by 1 / propensity, the log stands for its users and contexts with items
    drawn evenly from the catalogue."""

    column: ClassVar[str | None] = None  # of data.events, which has to be named
    reads_label: ClassVar[bool] = False  # whether it hangs on the label of the first task, which has to be 0 or 1
    one_task: ClassVar[bool] = False  # whether it holds for the first task alone
    of_positives: ClassVar[bool] = False  # the chance of a positive to be seen as one, not of the row to be in the log

    @abstractmethod
    def fit(self, dataset: Dataset, row_X: np.ndarray, task: str) -> np.ndarray:
        """propensity_X of these rows of the examples, float64 in (0, 1]. Raises InputError where the log lacks something."""
