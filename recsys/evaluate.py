"""Judge a model the way it is served: rank the whole catalogue, beside the floor, and keep every user's value.

Shapes: U = users judged, K = list length, C = candidates, X = examples, T = tasks, B = users of one batch, P = pairs,
S = sampled items, D = width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.batch import Ids
from recsys.columns import FIRST_ID, TRAIN, USER
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.jagged import Jagged, gather
from recsys.loader import ExampleLoader
from recsys.metrics import classification, floor
from recsys.metrics import embedding_health as health
from recsys.metrics.ranking import coverage, rank_metrics
from recsys.models.ranker import RankingGraph
from recsys.models.retriever import RetrievalGraph
from recsys.prefetch import prefetch

RequestTime = Literal["target", "last_event"]
HEALTH_ITEMS, HEALTH_PAIRS = 25_600, 1024  # at most so many are looked at, the same ones at every validation
HEALTH_SEED = 0


class Graph(Protocol):
    """A serving form that recommends."""

    def best(
        self, history_BL: Tensor, length_B: Tensor, exclude_BE: Tensor, count: int, time_BM: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """item_BK and score_BK, best first, of at most `count` items; -inf where nothing is left, not finite where it fails."""
        ...

    def parameters(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Judged:
    """Users with events in a split: what came before the split, and what they then chose."""

    user_U: np.ndarray  # dense ids
    history: Jagged
    relevant: Jagged
    time_ms: Jagged  # when each event of the history happened and, as one more entry, when the list is asked for

    def take(self, row_B: np.ndarray) -> "Judged":
        """These of them."""
        return Judged(self.user_U[row_B], self.history.take(row_B), self.relevant.take(row_B), self.time_ms.take(row_B))


def judged_users(data: Dataset, split: int, *, filter_seen: bool, request_time: RequestTime = "target") -> Judged:
    """A user's history is everything before their first event of the split. With `filter_seen`, a repeat of the history is
    no target, because it cannot be recommended; a user with nothing else is left out.

    A list is asked for at the time of the first event of the split, as a server knows it, or ("last_event") at the time of
    the last event of the history, for models that must not know when the user came back.
    """
    first_U, targets_U = data.events(split)
    user_U = np.flatnonzero(targets_U)
    history = _slices(data.item_E, user_U, data.start_U, first_U - data.start_U)
    relevant = _slices(data.item_E, user_U, first_U, targets_U)
    request_E = data.start_U[user_U] + history.lengths - (request_time == "last_event") * (history.lengths > 0)
    time_ms = _with_last(_slices(data.time_ms_E, user_U, data.start_U, first_U - data.start_U), data.time_ms_E[request_E])
    if not filter_seen:
        return Judged(user_U, history, relevant, time_ms)
    keys_E = relevant.row_E * data.num_items + relevant.item_E
    fresh_E = ~np.isin(keys_E, history.row_E * data.num_items + history.item_E)
    left_U = np.bincount(relevant.row_E[fresh_E], minlength=len(user_U))
    relevant = Jagged(relevant.item_E[fresh_E], np.concatenate([[0], np.cumsum(left_U)]))
    kept = np.flatnonzero(left_U)
    return Judged(user_U, history, relevant, time_ms).take(kept)


def training_timelines(data: Dataset) -> Jagged:
    """Every user's timeline up to the end of the training split."""
    return _slices(data.item_E, np.arange(data.num_users), *data.events(TRAIN))


def recommend(graph: Graph, judged: Judged, *, k: int, max_history: int, filter_seen: bool, batch: int = 256) -> np.ndarray:
    """The model's list item_UK of every user, best first; 0 where it has no more. Users are scored in order of length, so that
    little is padding."""
    item_UK = np.zeros((len(judged.history), k), np.int64)
    order_U = np.argsort(np.minimum(judged.history.lengths, max_history), kind="stable")
    for begin in range(0, len(order_U), batch):
        row_B = order_U[begin : begin + batch]
        whole, time_ms = judged.history.take(row_B), judged.time_ms.take(row_B)
        item_BK = _top(graph, whole, time_ms, k=k, max_history=max_history, filter_seen=filter_seen)
        item_UK[row_B, : item_BK.shape[1]] = item_BK
    return item_UK


@torch.no_grad()
def _top(graph: Graph, whole: Jagged, time_ms: Jagged, *, k: int, max_history: int, filter_seen: bool) -> np.ndarray:
    device = next(iter(graph.parameters())).device
    history_BL, length_B, time_BM = (tensor.to(device) for tensor in _read(whole, time_ms, max_history))
    exclude_BE = padded(whole)[0].to(device) if filter_seen else history_BL.new_zeros(len(history_BL), 1)
    item_BK, score_BK = graph.best(history_BL, length_B, exclude_BE, k, time_BM)
    if torch.isnan(score_BK).any() or (score_BK == torch.inf).any():
        bad = int((torch.isnan(score_BK) | (score_BK == torch.inf)).any(1).sum())
        raise InputError(f"the model gives scores that are not finite for {bad} users")
    return torch.where(torch.isfinite(score_BK), item_BK, 0).cpu().numpy()


def _read(whole: Jagged, time_ms: Jagged, max_history: int) -> tuple[Tensor, Tensor, Tensor]:
    """history_BL, length_B and time_BM, what the graph reads of these users."""
    history_BL, length_B = padded(whole.last(max_history))
    time_BM, _ = padded(time_ms.last(max_history + 1), columns=history_BL.shape[1] + 1)
    return history_BL, length_B, time_BM


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
    read = _read(judged.history.take(row_B), judged.time_ms.take(row_B), max_history)
    return graph.users(*(tensor.to(graph.item_ID.device) for tensor in read)).float().cpu().numpy()


def padded(lists: Jagged, *, columns: int = 1) -> tuple[Tensor, Tensor]:
    """value_BL with zeros on the right (at least `columns` of them) and length_B."""
    length_B = lists.lengths
    value_BL = np.zeros((len(lists), max(columns, int(length_B.max(initial=0)))), np.int64)
    value_BL[lists.row_E, np.arange(len(lists.item_E)) - np.repeat(lists.offset_U1[:-1], length_B)] = lists.item_E
    return torch.from_numpy(value_BL), torch.from_numpy(length_B.astype(np.int64))


def retrieval_metrics(
    item_UK: np.ndarray, judged: Judged, ks: Sequence[int], num_items: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Means over users, coverage at the first K, and the values of every user."""
    per_user = rank_metrics(item_UK, judged.relevant, ks)
    means = {name: float(np.mean(value_U)) for name, value_U in per_user.items()}
    return {**means, f"coverage@{ks[0]}": coverage(item_UK[:, : ks[0]], num_items)}, per_user


def floors(data: Dataset, judged: Judged, *, k: int, filter_seen: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Lists of the models that any other has to beat, counted on the training split."""
    timelines = training_timelines(data)
    scorers: dict[str, floor.Scorer] = {
        "popularity": floor.Popularity.fit(timelines, data.num_items),
        "item-knn": floor.ItemKNN.fit(timelines, data.num_items, last=3),
        "transitions": floor.Transitions.fit(timelines, data.num_items),
    }
    for name, scorer in scorers.items():
        yield name, floor.recommend(scorer, judged.history, data.num_items, k, filter_seen=filter_seen)


@dataclass(frozen=True)
class Predictions:
    """Probabilities, or predicted numbers, and labels (NaN where a label does not exist) of every example of a split."""

    user_X: np.ndarray
    probability_XT: np.ndarray
    label_XT: np.ndarray


@torch.no_grad()
def predict(graph: RankingGraph, loader: ExampleLoader) -> Predictions:
    """The serving form's answers for the loader's examples, on the graph's device."""
    device, probability, label = graph.item_id.device, [], []
    for batch in prefetch(loader.in_order()):
        label.append(batch.label_BT.numpy())
        batch = batch.to(device)
        ids, history = batch.ids, batch.ids["history"]
        context = torch.stack([ids[name].value_N for name in loader.dataset.context], dim=1) if loader.dataset.context else None
        behaviour = Ids(batch.behaviour_N, history.length_B).padded() if graph.reads_behaviours else None
        found = graph(ids["user"].value_N, history.padded(), history.length_B, ids["item"].value_N[:, None], context, behaviour)
        probability.append(found[:, 0].cpu().numpy())
    return Predictions(loader.dataset.examples[USER][loader.row_X], np.concatenate(probability), np.concatenate(label))


def ranking_metrics(
    predictions: Predictions, tasks: Sequence[str], *, ece_bins: int, seed: int, intervals: bool, numbers: Sequence[str] = ()
) -> dict[str, Any]:
    """AUC, GAUC, LogLoss and ECE of each task; with `intervals` also a 95 % interval of AUC over resampled users.

    Tasks of `numbers`, whose label is one, have the root mean squared error (RMSE) and the mean absolute one (MAE) instead, in
    units of the label. NaN where a metric does not exist: AUC without both classes, everything without labels.
    """
    metrics: dict[str, Any] = {}
    for column, task in enumerate(tasks):
        label_X = predictions.label_XT[:, column]
        exists_X = ~np.isnan(label_X)
        score_N, label_N, user_N = predictions.probability_XT[exists_X, column], label_X[exists_X], predictions.user_X[exists_X]
        if task in numbers:
            error_N = score_N.astype(np.float64) - label_N
            metrics[f"RMSE/{task}"] = float(np.sqrt(np.mean(error_N**2))) if len(error_N) else float("nan")
            metrics[f"MAE/{task}"] = float(np.mean(np.abs(error_N))) if len(error_N) else float("nan")
            continue
        if not len(label_N):
            names = ["AUC", "GAUC", "LogLoss", "ECE", *(("AUC_low", "AUC_high") if intervals else ())]
            metrics |= {f"{name}/{task}": float("nan") for name in names}
            continue
        metrics[f"AUC/{task}"] = classification.auc(score_N, label_N)
        metrics[f"GAUC/{task}"] = classification.gauc(score_N, label_N, user_N)
        metrics[f"LogLoss/{task}"] = classification.log_loss(score_N, label_N)
        metrics[f"ECE/{task}"] = classification.expected_calibration_error(score_N, label_N, bins=ece_bins)
        if intervals:
            low, high = classification.auc_interval(score_N, label_N, user_N, rng=np.random.default_rng(seed))
            metrics |= {f"AUC_low/{task}": low, f"AUC_high/{task}": high}
    return metrics


def _slices(value_E: np.ndarray, user_U: np.ndarray, start: np.ndarray, length: np.ndarray) -> Jagged:
    return Jagged(gather(value_E, start[user_U], length[user_U]), np.concatenate([[0], np.cumsum(length[user_U])]))


def _with_last(lists: Jagged, last_U: np.ndarray) -> Jagged:
    """Each list with one more entry at its end."""
    return Jagged(np.insert(lists.item_E, lists.offset_U1[1:], last_U), lists.offset_U1 + np.arange(len(lists) + 1))
