"""Users drawn anew, with replacement: the same draws for everything that is compared.

Shapes: U = users, R = bootstrap replicates, C = replicates drawn at once, M = columns.
"""

from collections.abc import Iterator

import numpy as np

CELLS_AT_ONCE = 1 << 22  # of times_CU: 32 MiB of random numbers


def draw_users(num_users: int, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """times_RU, how often each user was drawn."""
    return np.concatenate(list(_draws(num_users, replicates, rng)))


def drawn_user_means(value_UM: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """mean_RM over users of each column. Draws are not kept, so that millions of users fit.

    What is drawn is the distance from the column's own mean, in 32 bits: their products take half the time, and every draw has
    as many users as there are, so that nothing else is lost than digits of the spread.
    """
    mean_M = value_UM.mean(0, dtype=np.float64)
    apart_UM = (value_UM - mean_M).astype(np.float32)
    found = [times_CU.astype(np.float32) @ apart_UM for times_CU in _draws(len(value_UM), replicates, rng)]
    return np.asarray(mean_M + np.concatenate(found, dtype=np.float64) / len(value_UM))


def _draws(num_users: int, replicates: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    assert num_users, "nobody to draw from"
    at_once = max(1, CELLS_AT_ONCE // num_users)
    for start in range(0, replicates, at_once):
        rows = min(at_once, replicates - start)
        place_CU = rng.integers(num_users, size=(rows, num_users)) + np.arange(rows)[:, None] * num_users
        yield np.bincount(place_CU.ravel(), minlength=rows * num_users).astype(np.int32).reshape(rows, num_users)
