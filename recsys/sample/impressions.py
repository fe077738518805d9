"""True negatives, where the log holds what was shown and not taken. Shapes: U = users, X = examples, E = negatives."""

import numpy as np

from recsys.columns import ITEM, TRAIN, USER, label
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.jagged import Jagged


def impressions(dataset: Dataset, task: str) -> Jagged:
    """Of every user (row = dense id) the items of the training split with label 0 of the task, in the order of the examples.

    An item shown twice stands there twice, and one that the user took on another occasion stands there for the occasion on
    which it was not. Raises InputError where the dataset lacks the task.
    """
    if task not in dataset.tasks:
        raise InputError(f"{dataset.folder} has no task {task!r}: choose one of {dataset.tasks}")
    row_X = dataset.example_rows(TRAIN)
    row_E = row_X[dataset.examples[label(task)][row_X] == 0]
    user_E = dataset.examples[USER][row_E]
    order_E = np.argsort(user_E, kind="stable")  # a user's examples may lie in several files
    count_U = np.bincount(user_E, minlength=dataset.num_users)
    return Jagged(dataset.examples[ITEM][row_E][order_E], np.concatenate([[0], np.cumsum(count_U)]))
