"""Propensity by the place on the page.

Shapes: X = training examples, C = pairs of an item and a slot that the log has, K = slots, Q = items.
"""

from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from recsys.columns import ITEM, SLOT, label
from recsys.dataset import Dataset
from recsys.debias.propensity import PropensitySpec
from recsys.errors import InputError


class Curve(NamedTuple):
    """What EM came to."""

    theta_K: np.ndarray  # chance that a slot is looked at, that of the first being 1
    gamma_Q: np.ndarray  # chance of a click on the item where it is looked at
    log_likelihood: np.ndarray  # before each iteration and after the last one


class Examination(PropensitySpec):
    """A click at a slot that few look at counts for those who did not: clicks have the chance theta of their slot, others 1.

    Position-based model by EM, Wang et al. 2018, https://research.google/pubs/pub46485: P(click) = theta_slot * gamma. Differs
    from the paper: gamma is a table by item, not a model of query and document, so that the place of an item has to be
    independent of the user's taste for it; theta of the first slot is 1 all along, without which only ratios are known. The
    first task is the click; other tasks of a clicked row share its weight, since only what was looked at is clicked.
    """

    column: ClassVar[str | None] = "slot"
    reads_label: ClassVar[bool] = True
    of_positives: ClassVar[bool] = True

    kind: Literal["examination"] = "examination"
    iterations: int = Field(500, ge=1, description="of EM, at most")
    tolerance: float = Field(1e-9, ge=0, description="stops where an iteration adds less to the log likelihood of an example")

    def fit(self, dataset: Dataset, row_X: np.ndarray, task: str) -> np.ndarray:
        label_X = np.asarray(dataset.examples[label(task)][row_X])
        known_X = ~np.isnan(label_X)
        slot_X = np.asarray(dataset.examples[SLOT][row_X]) if SLOT in dataset.examples else np.full(len(row_X), -1)
        if (slot_X < 0).any():
            raise InputError(
                f"propensity examination needs data.events.slot, the place on the page, of every training example, and "
                f"{(slot_X < 0).sum()} of {len(row_X)} have none: name its column, or choose popularity"
            )
        clicked_X = label_X[known_X] == 1
        _, slot_X = np.unique(slot_X[known_X], return_inverse=True)
        _, item_X = np.unique(np.asarray(dataset.examples[ITEM][row_X])[known_X], return_inverse=True)
        propensity_X = np.ones(len(row_X))
        propensity_X[known_X] = np.where(clicked_X, self.curve(slot_X, item_X, clicked_X).theta_K[slot_X], 1.0)
        return propensity_X

    def curve(self, slot_X: np.ndarray, item_X: np.ndarray, clicked_X: np.ndarray) -> Curve:
        """EM over impressions, gathered by item and slot. Raises InputError where no item was at two slots."""
        num_slots, num_items = slot_X.max(initial=0) + 1, item_X.max(initial=0) + 1
        cell_C, of_X = np.unique(item_X.astype(np.int64) * num_slots + slot_X, return_inverse=True)
        item_C, slot_C = np.divmod(cell_C, num_slots)
        shown_C, click_C = np.bincount(of_X), np.bincount(of_X, clicked_X)
        if len(cell_C) == num_items or not clicked_X.any():
            raise InputError(
                "propensity examination tells slots apart by clicks on items that were at several of them, and there are none: "
                "choose popularity"
            )
        shown_K, shown_Q = np.bincount(slot_C, shown_C, num_slots), np.bincount(item_C, shown_C, num_items)
        theta_K, gamma_Q = np.full(num_slots, 0.5), np.full(num_items, 0.5)
        theta_K[0] = 1.0  # and stays so: what is surely looked at was looked at where it was not clicked
        likelihood = [_log_likelihood(theta_K[slot_C] * gamma_Q[item_C], shown_C, click_C)]
        for _ in range(self.iterations):
            looked_C, liked_C = missed(theta_K[slot_C], gamma_Q[item_C])
            skipped_C = shown_C - click_C
            theta_K = np.bincount(slot_C, click_C + skipped_C * looked_C, num_slots) / np.maximum(shown_K, 1)
            gamma_Q = np.bincount(item_C, click_C + skipped_C * liked_C, num_items) / np.maximum(shown_Q, 1)
            likelihood.append(_log_likelihood(theta_K[slot_C] * gamma_Q[item_C], shown_C, click_C))
            if likelihood[-1] - likelihood[-2] < self.tolerance:
                break
        return Curve(np.clip(theta_K, 1e-6, 1.0), gamma_Q, np.array(likelihood))


def missed(theta: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of an impression without a click: the chance that it was looked at, and that it would have been clicked."""
    no_click = np.maximum(1 - theta * gamma, 1e-12)
    return theta * (1 - gamma) / no_click, (1 - theta) * gamma / no_click


def _log_likelihood(chance_C: np.ndarray, shown_C: np.ndarray, click_C: np.ndarray) -> float:
    """Of one impression, on average."""
    chance_C = np.clip(chance_C, 1e-300, 1.0)
    skipped_C = shown_C - click_C
    log_skip_C = np.log(np.maximum(1 - chance_C, 1e-300))
    return float((click_C * np.log(chance_C) + skipped_C * log_skip_C).sum() / shown_C.sum())
