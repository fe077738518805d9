"""The lists of a model, made the way it is served: the whole catalogue ranked for every user.

Shapes: U = users judged, K = list length, B = users of one batch, L = history, E = excluded items, M = L + 1 times.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from recsys.errors import InputError
from recsys.evaluate.judged import Judged
from recsys.evaluate.top_k import TopK
from recsys.jagged import Jagged
from recsys.models.retriever import RetrievalGraph

Part = TypeVar("Part")
Found = TypeVar("Found")


class Graph(Protocol):
    """A serving form that recommends."""

    def best(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, count: int, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """item_BK and score_BK, best first, of at most `count` items; -inf where nothing is left, not finite where it fails."""
        ...

    def parameters(self) -> Iterator[Tensor]: ...


ENCODED_EVENTS = 4096  # padded events that a CPU encodes at once: what a layer writes stays in its caches


def recommend(graph: Graph, judged: Judged, *, k: int, max_history: int, filter_seen: bool, batch: int = 256) -> np.ndarray:
    """The model's list item_UK of every user, best first; 0 where it has no more. Users are scored in order of length, so that
    little is padding. Among equal scores the lower id comes first. Where items have vectors, memory does not grow with the
    catalogue (`TopK`); else the lists are what the graph's own search has found."""
    item_UK = np.zeros((len(judged.history), k), np.int64)
    order_U = np.argsort(np.minimum(judged.history.lengths, max_history), kind="stable")
    parts = [order_U[begin : begin + batch] for begin in range(0, len(order_U), batch)]
    if not isinstance(graph, RetrievalGraph):
        for row_B in parts:
            found = _searched(graph, judged.take(row_B), k, max_history, filter_seen)
            item_UK[row_B, : found.shape[1]] = found
        return item_UK
    top = TopK(graph.scored_ID)

    def ranked(row_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return row_B, _ranked(graph, top, judged.take(row_B), k, max_history, filter_seen)

    for row_B, found in in_threads(ranked, parts, on_cpu=top.item_ID.device.type == "cpu"):
        item_UK[row_B, : found.shape[1]] = found
    return item_UK


@torch.no_grad()
def _ranked(graph: RetrievalGraph, top: TopK, judged: Judged, k: int, max_history: int, filter_seen: bool) -> np.ndarray:
    return _checked(*top(user_vectors(graph, judged, max_history), k, judged.history if filter_seen else None))


@torch.no_grad()
def _searched(graph: Graph, judged: Judged, k: int, max_history: int, filter_seen: bool) -> np.ndarray:
    device = next(iter(graph.parameters())).device
    history_BL, length_B, time_BM = (tensor.to(device) for tensor in read(judged.history, judged.time_ms, max_history))
    exclude_BE = padded(judged.history)[0].to(device) if filter_seen else history_BL.new_zeros(len(history_BL), 1)
    item_BK, score_BK = graph.best(history_BL, length_B, exclude_BE, k, time_BM)
    item_BK, by_id_BK = item_BK.sort(dim=1)
    score_BK, order_BK = score_BK.gather(1, by_id_BK).sort(dim=1, descending=True, stable=True)
    return _checked(item_BK.gather(1, order_BK), score_BK)


def _checked(item_BK: Tensor, score_BK: Tensor) -> np.ndarray:
    if torch.isnan(score_BK).any() or (score_BK == torch.inf).any():
        bad = int((torch.isnan(score_BK) | (score_BK == torch.inf)).any(1).sum())
        raise InputError(f"the model gives scores that are not finite for {bad} users")
    return torch.where(torch.isfinite(score_BK), item_BK, 0).cpu().numpy()


@torch.no_grad()
def user_vectors(graph: RetrievalGraph, judged: Judged, max_history: int) -> Tensor:
    """user_BD as it is scored, on the graph's device; a CPU encodes a few users at a time."""
    device, users = graph.item_ID.device, max(1, len(judged.history))
    if device.type == "cpu":
        longest = min(max_history, int(judged.history.lengths.max(initial=0))) + 1
        users = max(1, ENCODED_EVENTS // longest)
    parts = []
    for begin in range(0, max(1, len(judged.history)), users):
        history, time_ms = judged.history.slice(begin, begin + users), judged.time_ms.slice(begin, begin + users)
        parts.append(graph.users(*(tensor.to(device) for tensor in read(history, time_ms, max_history))))
    return torch.cat(parts)


def in_threads(call: Callable[[Part], Found], parts: Sequence[Part], *, on_cpu: bool) -> Iterator[Found]:
    """`call` of each part, in order. On a CPU as many at a time as torch has threads, on one thread each: whole batches side by
    side wait for nobody, where threads within an operation wait for each other at its end."""
    threads = min(torch.get_num_threads(), len(parts)) if on_cpu else 1
    if threads <= 1:
        yield from map(call, parts)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.get_num_threads) as pool:  # asking is what sets it in a new thread
            yield from pool.map(call, parts)
    finally:
        torch.set_num_threads(before)


def read(whole: Jagged, time_ms: Jagged, max_history: int) -> tuple[Tensor, Tensor, Tensor]:
    """history_BL, length_B and time_BM, what the graph reads of these users."""
    history_BL, length_B = padded(whole.last(max_history))
    time_BM, _ = padded(time_ms.last(max_history + 1), columns=history_BL.shape[1] + 1)
    return history_BL, length_B, time_BM


def padded(lists: Jagged, *, columns: int = 1) -> tuple[Tensor, Tensor]:
    """value_BL with zeros on the right (at least `columns` of them) and length_B."""
    length_B = lists.lengths
    value_BL = np.zeros((len(lists), max(columns, int(length_B.max(initial=0)))), np.int64)
    value_BL[lists.row_E, np.arange(len(lists.item_E)) - np.repeat(lists.offset_U1[:-1], length_B)] = lists.item_E
    return torch.from_numpy(value_BL), torch.from_numpy(length_B.astype(np.int64))
