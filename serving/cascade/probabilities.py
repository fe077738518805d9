"""The ranking graph's part: what each task's probability is for given items.

Shapes: B = questions, L = history, K = items, T = tasks.
"""

from collections.abc import Sequence

import numpy as np

from recsys.columns import PADDING_ID
from serving.bundle.bundle import Array, Bundle
from serving.cascade.asked import Asked


def probabilities(bundle: Bundle, asked_B: Sequence[Asked], item_BK: Array) -> Array:
    """probability_BKT of given items; T = 0 where the bundle has no ranking graph. Raises RuntimeError for NaN."""
    if bundle.ranking is None:
        return np.zeros((*item_BK.shape, 0), dtype=np.float32)
    history_BL, length_B = padded([asked.history_L for asked in asked_B])
    user_B = np.array([asked.user for asked in asked_B], dtype=np.int64)
    given = {"user": user_B, "history": history_BL, "length": length_B, "item": item_BK}
    if bundle.facts.context:
        given["context"] = np.stack([asked.context_F for asked in asked_B])
    if bundle.reads_behaviours:
        given["behaviour"], _ = padded([asked.behaviour_L for asked in asked_B])
    if bundle.features is not None:
        given["dense"] = bundle.features.dense(asked_B, item_BK)
    [probability_BKT] = bundle.ranking.run(["probability"], given)
    if np.isnan(probability_BKT).any():
        raise RuntimeError(f"the ranking graph of {bundle.name} gave a probability that is not a number")
    return probability_BKT


def padded(rows: Sequence[Array], *, columns: int = 1) -> tuple[Array, Array]:
    """Rows of different length -> (B, longest, at least `columns`) filled with padding on the right, and the lengths."""
    if len(rows) == 1 and len(rows[0]) >= columns:
        return np.asarray(rows[0], np.int64)[None], np.array([len(rows[0])], np.int64)
    length_B = np.array([len(row) for row in rows], dtype=np.int64)
    out_BL = np.full((len(rows), max(columns, length_B.max())), PADDING_ID, dtype=np.int64)
    out_BL[np.arange(out_BL.shape[1]) < length_B[:, None]] = np.concatenate(rows)
    return out_BL, length_B
