"""The errors of one version of the model. A new version begins with none: they are errors of the old one's predictions.

Shapes: L = history, K = items, D = numbers of an item's vector, T = tasks of the bundle, C = tasks that are corrected.
"""

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.columns import FIRST_ID
from recsys.error_memory import ErrorMemory, ErrorMemorySpec, taste_keys
from serving.bundle.bundle import Bundle

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Answered:
    """A list that was served, once it is known what became of it. Ids are external."""

    user_id: str
    history: tuple[str, ...]  # the newest items that its keys are made of, oldest first
    items: tuple[str, ...]
    said_KC: Array  # what the model said, before any correction
    label_KC: Array  # 1 where the task's event came in time, else 0


class BundleMemory:
    """Read in the thread of the graphs, written in that of the server."""

    def __init__(self, bundle: Bundle, spec: ErrorMemorySpec) -> None:
        self.spec, self._bundle = spec, bundle
        self._column_C = np.array([bundle.facts.tasks.index(task) for task in spec.tasks])
        self._memory = ErrorMemory(spec, 2 * bundle.vector_ID.shape[1], len(spec.tasks))
        self._lock = Lock()

    @property
    def count(self) -> int:
        """How many errors are remembered."""
        return len(self._memory)

    def compensated(self, history_L: Array, item_K: Array, probability_KT: Array) -> Array:
        """probability_KT with the errors near this user and these items taken into account, as far as they are known."""
        if not self._memory.written:
            return probability_KT
        key_KD = self._keys(history_L, item_K)
        better_KT = probability_KT.copy()
        with self._lock:
            better_KT[:, self._column_C] = self._memory.compensated(probability_KT[:, self._column_C], key_KD)
        return better_KT

    def learn(self, each: Answered) -> None:
        """Remember how far the model was off. Items that the bundle lacks are left out."""
        find = self._bundle.item_index.find
        item_K = np.array([find(text) for text in each.items], np.int64)
        history_L = np.array([find(text) for text in each.history], np.int64)
        known_K = item_K >= FIRST_ID
        key_KD = self._keys(history_L[history_L >= FIRST_ID], item_K[known_K])
        error_KC = (each.label_KC - each.said_KC)[known_K]
        with self._lock:
            self._memory.write(key_KD, error_KC, owner_of(each.user_id))

    def forget(self, user_id: str) -> int:
        """How many errors of the user's lists there were."""
        with self._lock:
            return self._memory.forget(owner_of(user_id))

    def _keys(self, history_L: Array, item_K: Array) -> Array:
        newest_L = history_L[-self.spec.history :]
        return taste_keys(self._bundle.unit_vectors(newest_L), self._bundle.unit_vectors(item_K), self.spec.item_share)


def owner_of(user_id: str) -> int:
    """A number for this process."""
    return hash(user_id) & (2**63 - 1)
