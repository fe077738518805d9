"""The order of an epoch in which some rows of a user stand together in a batch.

Shapes: X = rows, G = groups, B = rows of a batch.
"""

from typing import NamedTuple

import numpy as np


class Grouped(NamedTuple):
    """A batch: its first `groups * size` rows are groups of `size`, the others stand alone."""

    row_B: np.ndarray
    groups: int
    size: int

    def share(self, rank: int, world_size: int) -> np.ndarray:
        """The rows of one process: whole groups dealt in turn, single rows dealt the other way round."""
        cut = self.groups * self.size
        group_GK, single_B = self.row_B[:cut].reshape(-1, self.size), self.row_B[cut:]
        if len(group_GK) + len(single_B) < world_size:  # a process would be left without rows
            return self.row_B[rank::world_size]
        return np.concatenate([group_GK[rank::world_size].ravel(), single_B[world_size - 1 - rank :: world_size]])


def grouped(
    row_X: np.ndarray, user_X: np.ndarray, positive_X: np.ndarray, size: int, ends: list[int], rng: np.random.Generator
) -> list[Grouped]:
    """Every row once, in batches that end at `ends`: groups of `size` positives of one user as far as a user has as many and
    batches have room for whole ones, and the rest at random."""
    group_GK, rest_X = _groups(row_X, user_X, positive_X, size, rng)
    length = np.diff([0, *ends])
    slots = rng.permutation(np.repeat(np.arange(len(ends)), length // size))
    placed = rng.permutation(group_GK)
    left = placed[len(slots) :].ravel()
    placed = placed[: len(slots)]
    groups = np.bincount(slots[: len(placed)], minlength=len(ends))
    single_X = rng.permutation(np.concatenate([rest_X, left]))
    group_ends, single_ends = np.cumsum(groups), np.cumsum(length - groups * size)
    parts = zip(np.split(placed, group_ends[:-1]), np.split(single_X, single_ends[:-1]), groups.tolist(), strict=True)
    return [Grouped(np.concatenate([whole.ravel(), single]), count, size) for whole, single, count in parts]


def _groups(
    row_X: np.ndarray, user_X: np.ndarray, positive_X: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """row_GK, `size` positives of one user each, and the rows that are left."""
    order = np.lexsort((rng.random(len(row_X)), user_X, ~positive_X))  # positives first, user by user
    count = int(positive_X.sum())
    user_P = user_X[order[:count]]
    _, start_P, of_P, count_P = np.unique(user_P, return_index=True, return_inverse=True, return_counts=True)
    is_grouped_P = np.arange(count) - start_P[of_P] < (count_P // size * size)[of_P]
    return (
        row_X[order[:count][is_grouped_P]].reshape(-1, size),
        row_X[np.concatenate([order[:count][~is_grouped_P], order[count:]])],
    )
