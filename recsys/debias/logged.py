"""Propensity as the logging policy wrote it down. Shapes: X = training examples."""

from typing import ClassVar, Literal

import numpy as np

from recsys.columns import PROPENSITY
from recsys.dataset import Dataset
from recsys.debias.propensity import PropensitySpec
from recsys.errors import InputError


class Logged(PropensitySpec):
    """The column `data.events.propensity`: the probability with which the item was shown. Exact where the log is right."""

    column: ClassVar[str | None] = "propensity"

    kind: Literal["logged"] = "logged"

    def fit(self, dataset: Dataset, row_X: np.ndarray, task: str) -> np.ndarray:
        propensity_X = np.full(len(row_X), np.nan)
        if PROPENSITY in dataset.examples:
            propensity_X = np.asarray(dataset.examples[PROPENSITY][row_X], np.float64)
        known_X = (propensity_X > 0) & (propensity_X <= 1)
        if not known_X.all():
            raise InputError(
                f"propensity logged needs data.events.propensity above 0 for every training example, and {(~known_X).sum()} of "
                f"{len(row_X)} have none: name its column, or choose popularity"
            )
        return propensity_X
