"""Propensity by the label. Shapes: X = training examples."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys.columns import FIRST_ID, USER, label
from recsys.dataset import Dataset
from recsys.debias.propensity import PropensitySpec
from recsys.errors import InputError


class NaiveBayes(PropensitySpec):
    """P(in the log | label) = P(label | in the log) P(in the log) / P(label): people rate what they like.

    Schnabel et al. 2016, https://arxiv.org/abs/1602.05352, section 5.1. Differs from the paper: P(label) is given, and not
    counted in a random sample of labels, which few logs have and which must not be that of the test.
    """

    reads_label: ClassVar[bool] = True
    one_task: ClassVar[bool] = True

    kind: Literal["naive_bayes"] = "naive_bayes"
    positive_share: float = Field(gt=0, lt=1, description="share of positives among all pairs of a user and an item")

    def fit(self, dataset: Dataset, row_X: np.ndarray, task: str) -> np.ndarray:
        label_X = np.asarray(dataset.examples[label(task)][row_X])
        known_X = ~np.isnan(label_X)
        users = len(np.unique(dataset.examples[USER][row_X]))
        logged_share = min(1.0, known_X.sum() / max(1, users * (dataset.num_items - FIRST_ID)))
        positive = float((label_X[known_X] == 1).mean()) if known_X.any() else 0.0
        if not 0 < positive < 1:
            raise InputError(
                f"propensity naive_bayes compares positives with negatives, and every training label of task {task!r} is the "
                "same: choose popularity"
            )
        of_negative, of_positive = self.of_labels(positive, logged_share)
        return np.where(known_X, np.where(label_X == 1, of_positive, of_negative), logged_share)

    def of_labels(self, positive_share_of_log: float, logged_share: float) -> tuple[float, float]:
        """The propensities of a negative and of a positive."""
        negative = (1 - positive_share_of_log) * logged_share / (1 - self.positive_share)
        return min(1.0, negative), min(1.0, positive_share_of_log * logged_share / self.positive_share)
