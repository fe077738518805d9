"""A distribution over items, drawn from with or without a user's own items.

Shapes: I = rows of the item table, U = users, E = items of all users, N = draws, R = draws of one chunk.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recsys.columns import PADDING_ID
from recsys.jagged import Jagged

ROUNDS = 8  # of rejection, before what is left is drawn from each user's own distribution
CELLS = 1 << 22  # of users' own distributions in memory at once


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Item i has probability `probability_I[i]`; the sum is 1."""

    probability_I: np.ndarray

    @cached_property
    def log_q_I(self) -> np.ndarray:
        """log p, -inf for an item that is never drawn: what the logQ correction takes off a sampled item's logit.

        Yi et al. 2019, https://doi.org/10.1145/3298689.3346996, after Bengio and Senecal 2008. `draw_unseen` draws an item with
        p / (1 - share of the user's own items), whose log is larger by a number of the user's; this leaves it out.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.probability_I)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """item_N, independent of each other."""
        return np.searchsorted(self._cumulative_I, rng.random(count), side="right")

    def draw_unseen(self, rng: np.random.Generator, user_N: np.ndarray, seen: "Seen") -> np.ndarray:
        """item_N with the table's probabilities among the items that user_N[n] has not seen.

        Draws that hit a seen item are drawn again, `ROUNDS` times; the few that still hit one, users who have seen most of what
        is popular, are drawn from that user's own distribution, so none is ever a seen item and the distribution is exact.
        PADDING_ID stands for a user who has seen everything.
        """
        item_N = self.draw(rng, len(user_N))
        again = np.flatnonzero(seen.has(user_N, item_N))
        for _ in range(ROUNDS):
            item_N[again] = self.draw(rng, len(again))
            again = again[seen.has(user_N[again], item_N[again])]
        step = max(1, CELLS // len(self.probability_I))
        for begin in range(0, len(again), step):
            rows = again[begin : begin + step]
            item_N[rows] = self._draw_one_by_one(rng, seen.items.take(user_N[rows]))
        return item_N

    def _draw_one_by_one(self, rng: np.random.Generator, seen: Jagged) -> np.ndarray:
        own_RI = np.tile(self.probability_I, (len(seen), 1))
        own_RI[seen.row_E, seen.item_E] = 0
        sum_RI = np.cumsum(own_RI, axis=1)
        target_R1 = rng.random((len(seen), 1)) * sum_RI[:, -1:]
        return np.where(sum_RI[:, -1] > 0, np.argmax(sum_RI > target_R1, axis=1), PADDING_ID)

    @cached_property
    def _cumulative_I(self) -> np.ndarray:
        sum_I = np.cumsum(self.probability_I)
        return sum_I / sum_I[-1]  # ends at 1 exactly, which a draw never reaches


class Seen:
    """Which user has which item, for look-ups of many pairs at once."""

    def __init__(self, items: Jagged, num_items: int):
        """`items`: row = user."""
        self.items, self.num_items = items, num_items
        self._key_E = np.sort(items.row_E * num_items + items.item_E)

    def has(self, user_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
        """True where the user has the item."""
        if not len(self._key_E):
            return np.zeros(len(user_N), bool)
        key_N = user_N.astype(np.int64) * self.num_items + item_N
        place_N = np.searchsorted(self._key_E, key_N)
        return self._key_E[np.minimum(place_N, len(self._key_E) - 1)] == key_N
