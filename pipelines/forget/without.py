"""A dataset some of whose users are hidden: training on it is training without them, under the same dense ids.

Shapes: U = users, I = items, H = hidden users.
"""

from functools import cached_property

import numpy as np

from recsys.artefact import fingerprint
from recsys.columns import TEST, TRAIN, USER, VALID
from recsys.dataset import Dataset
from recsys.jagged import gather


class Without(Dataset):
    """Hidden users have no events and no examples in any split; popularity is counted without them. Files are shared."""

    def __init__(self, data: Dataset, hidden_H: np.ndarray):
        super().__init__(data.folder)
        self.hidden_U = np.zeros(data.num_users, bool)
        self.hidden_U[hidden_H] = True
        self._whole = data
        theirs = gather(data.item_E, *(column_U[self.hidden_U] for column_U in data.events(TRAIN)))
        self.train_count_I = data.train_count_I - np.bincount(theirs, minlength=data.num_items).astype(data.train_count_I.dtype)
        self.train_length_U = np.where(self.hidden_U, 0, data.train_length_U)
        self.valid_length_U = np.where(self.hidden_U, 0, data.valid_length_U)
        self.manifest = {
            **data.manifest,
            "data_fingerprint": fingerprint([data.manifest["data_fingerprint"], np.flatnonzero(self.hidden_U).tolist()]),
        }

    def events(self, split: int) -> tuple[np.ndarray, np.ndarray]:
        first_U, length_U = self._whole.events(split)
        return first_U, np.where(self.hidden_U, 0, length_U)

    def example_rows(self, split: int) -> np.ndarray:
        return self._rows[split]

    @cached_property
    def _rows(self) -> dict[int, np.ndarray]:
        rows = {split: self._whole.example_rows(split) for split in (TRAIN, VALID, TEST)}
        return {
            split: row_X[~self.hidden_U[self._whole.examples[USER][row_X]]] if len(row_X) else row_X
            for split, row_X in rows.items()
        }
