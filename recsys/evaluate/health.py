"""How much of their space the vectors of a retriever use.

Shapes: P = pairs, S = sampled items, N = items asked for, B = users of one batch, D = width.
"""

import numpy as np
import torch

from recsys.columns import FIRST_ID
from recsys.evaluate.judged import Judged
from recsys.evaluate.lists import read
from recsys.metrics import embedding_health as health
from recsys.models.retriever import RetrievalGraph

HEALTH_ITEMS, HEALTH_PAIRS = 25_600, 1024  # at most so many are looked at, the same ones at every validation
HEALTH_SEED = 0


@torch.no_grad()
def embedding_health(graph: RetrievalGraph, judged: Judged, *, max_history: int, batch: int = 256) -> dict[str, float]:
    """RankMe, and its share of the most it can be, of a uniform sample of the catalogue; alignment of users with the item they
    chose next; uniformity of each side. Vectors are those that are scored: at the served width, of length 1 under a cosine.
    """
    random = np.random.default_rng(HEALTH_SEED)
    items = len(graph.scored_ID) - FIRST_ID
    item_S = FIRST_ID + random.choice(items, min(items, HEALTH_ITEMS), replace=False)
    next_U = judged.relevant.item_E[judged.relevant.offset_U1[:-1]]
    known_U = np.flatnonzero(next_U >= FIRST_ID)
    row_P = random.choice(known_U, min(len(known_U), HEALTH_PAIRS), replace=False)
    item_SD = _items(graph, item_S)
    found = {"rankme": health.rankme(item_SD), "uniformity_items": health.uniformity(item_SD[:HEALTH_PAIRS])}
    found["rankme_share"] = found["rankme"] / min(item_SD.shape)
    if len(row_P):
        parts = np.split(row_P, range(batch, len(row_P), batch))
        user_PD = np.concatenate([_users(graph, judged, row_B, max_history) for row_B in parts])
        found["alignment"] = health.alignment(user_PD, _items(graph, next_U[row_P]))
        found["uniformity_users"] = health.uniformity(user_PD)
    return {name: value for name, value in found.items() if value == value}  # one vector alone has no uniformity


def _items(graph: RetrievalGraph, item_N: np.ndarray) -> np.ndarray:
    place_N = torch.from_numpy(item_N.astype(np.int64)).to(graph.scored_ID.device)
    return graph.scored_ID[place_N].float().cpu().numpy()


def _users(graph: RetrievalGraph, judged: Judged, row_B: np.ndarray, max_history: int) -> np.ndarray:
    inputs = read(judged.history.take(row_B), judged.time_ms.take(row_B), max_history)
    return graph.users(*(tensor.to(graph.item_ID.device) for tensor in inputs)).float().cpu().numpy()
