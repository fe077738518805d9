"""What a model would show at the moments of a log: a softmax over the catalogue.

Shapes: N = rows of the log, R = requests (rows that share user and moment), B = requests of a batch, L = history, E = excluded
items, K = items scored, I = rows of the item table, U = users, M = L + 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.columns import POSITION, TIME_MS, USER
from recsys.dataset import Dataset
from recsys.evaluate import Graph, RequestTime, padded
from recsys.jagged import Jagged, gather

# (history_BL, length_B, exclude_BE, time_BM) -> prob_BI, 0 for what is excluded
ItemProbabilities = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Requests:
    """Who asks when, and what they had done before. `request_N` is each row's request."""

    user_R: np.ndarray
    time_ms_R: np.ndarray
    history: Jagged
    time_ms: Jagged  # of each event of the history, and of the request at the end
    request_N: np.ndarray


def requests(data: Dataset, row_N: np.ndarray, request_time: RequestTime) -> Requests:
    """The requests of examples. `request_time`: as of `recsys.evaluate.judged_users`."""
    columns = [np.asarray(data.examples[name][row_N], np.int64) for name in (USER, POSITION, TIME_MS)]
    distinct_R3, request_N = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    user_R, position_R, time_ms_R = distinct_R3.T
    offset_R1 = np.concatenate([[0], np.cumsum(position_R)])
    history = Jagged(gather(data.item_E, data.start_U[user_R], position_R), offset_R1)
    event_ms = Jagged(gather(data.time_ms_E, data.start_U[user_R], position_R), offset_R1)
    asked_ms_R = time_ms_R.copy()
    if request_time == "last_event":
        some_R = position_R > 0
        asked_ms_R[some_R] = event_ms.item_E[offset_R1[1:][some_R] - 1]
    with_request = Jagged(np.insert(event_ms.item_E, offset_R1[1:], asked_ms_R), offset_R1 + np.arange(len(offset_R1)))
    return Requests(user_R, time_ms_R, history, with_request, request_N)


def softmax_policy(graph: Graph, num_items: int, temperature: float = 1.0) -> ItemProbabilities:
    """The scores of a model over a temperature, as probabilities of the items that are left."""

    def probabilities(history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, time_BM: Tensor) -> Tensor:
        item_BK, score_BK = graph.best(history_BL, length_B, exclude_BE, num_items, time_BM)
        prob_BK = torch.softmax(score_BK.double() / temperature, dim=1).nan_to_num(0.0)  # with nothing left there is no item
        return prob_BK.new_zeros(len(item_BK), num_items).scatter_add_(1, item_BK, prob_BK)

    return probabilities


@torch.no_grad()
def probabilities(
    policy: ItemProbabilities, asked: Requests, *, max_history: int, filter_seen: bool, batch: int = 256
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows of the requests, prob_BI) of one batch after the other, in order of length. `filter_seen` excludes the history."""
    order_R = np.argsort(np.minimum(asked.history.lengths, max_history), kind="stable")
    for begin in range(0, len(order_R), batch):
        row_B = order_R[begin : begin + batch]
        whole = asked.history.take(row_B)
        history_BL, length_B = padded(whole.last(max_history))
        time_BM, _ = padded(asked.time_ms.take(row_B).last(max_history + 1), columns=history_BL.shape[1] + 1)
        exclude_BE = padded(whole)[0] if filter_seen else torch.zeros(len(row_B), 1, dtype=torch.int64)
        yield row_B, policy(history_BL, length_B, exclude_BE, time_BM).numpy()
