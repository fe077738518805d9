"""How visible every item was, as far as the log says. Shapes: I = rows of the item table, X = examples, F = features."""

import numpy as np

from recsys.columns import FIRST_ID, ITEM, SLOT, TRAIN
from recsys.dataset import Dataset


def exposure(dataset: Dataset) -> np.ndarray:
    """exposure_IF of the training split, each feature with mean 0 and deviation 1 over the real items.

    The log of how often it was taken, of how often it was shown (where there are examples), and its mean place on the page
    (where the log knows it).

    An item that was never shown has the mean place. Reserved rows are 0.
    """
    features = [np.log1p(dataset.train_count_I.astype(np.float64))]
    row_X = dataset.example_rows(TRAIN)
    if len(row_X):
        item_X = dataset.examples[ITEM][row_X]
        features.append(np.log1p(np.bincount(item_X, minlength=dataset.num_items).astype(np.float64)))
        if SLOT in dataset.examples:
            slot_X = dataset.examples[SLOT][row_X]
            features.extend(_mean_slot(item_X[slot_X >= 0], slot_X[slot_X >= 0], dataset.num_items))
    found_IF = np.stack(features, axis=1)
    real_IF = found_IF[FIRST_ID:]
    real_IF -= real_IF.mean(0)
    real_IF /= np.where(real_IF.std(0) > 0, real_IF.std(0), 1)
    found_IF[:FIRST_ID] = 0
    return found_IF.astype(np.float32)


def _mean_slot(item_X: np.ndarray, slot_X: np.ndarray, num_items: int) -> list[np.ndarray]:
    if not len(slot_X):
        return []
    count_I = np.bincount(item_X, minlength=num_items)
    sum_I = np.bincount(item_X, weights=slot_X, minlength=num_items)
    return [np.where(count_I > 0, sum_I / np.maximum(count_I, 1), slot_X.mean())]
