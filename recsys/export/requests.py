"""Requests of the log's own users, as a graph reads them: what export measures on.

Shapes: B = requests, L = history, M = L + 1.
"""

import numpy as np

from recsys.columns import FIRST_ID
from recsys.dataset import Dataset
from recsys.jagged import Jagged


def sample_requests(data: Dataset, max_history: int, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """`history`, `length`, `time` and `exclude` (the history) of at most `count` users who did something; none twice."""
    known_U = np.flatnonzero(data.length_U[FIRST_ID:] > 0) + FIRST_ID
    user_B = np.sort(rng.choice(known_U, min(count, len(known_U)), replace=False))
    items = data.timelines.take(user_B).last(max_history)
    times = Jagged(data.time_ms_E, data.timelines.offset_U1).take(user_B).last(max_history)
    length_B, rows_B = items.lengths, np.arange(len(user_B))
    history_BL = np.zeros((len(user_B), max(1, length_B.max(initial=0))), np.int64)
    time_BM = np.zeros((len(user_B), history_BL.shape[1] + 1), np.int64)
    inside_BL = np.arange(history_BL.shape[1]) < length_B[:, None]
    history_BL[inside_BL], time_BM[:, :-1][inside_BL] = items.item_E, times.item_E
    time_BM[rows_B, length_B] = time_BM[rows_B, length_B - 1] + 1
    return {"history": history_BL, "length": length_B, "time": time_BM, "exclude": history_BL}
