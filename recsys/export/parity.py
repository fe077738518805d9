"""Torch and ONNX must agree: the trained TorchRec model on jagged input against the graph in ONNX Runtime on padded input.

Shapes: B = requests, L = history, E = excluded items, K = candidates returned, I = item rows, C = candidates ranked, T = tasks,
P = point-in-time features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from recsys.batch import Batch, Ids
from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.evaluate import padded
from recsys.jagged import Jagged
from recsys.models.dense_features import DenseFeatures
from recsys.models.item_codes import ItemCodes
from recsys.models.ranker import Ranker

TOLERANCE = 1e-4
BATCHES = (1, 7, 64)


@dataclass(frozen=True)
class Parity:
    """The largest difference over all batches and history lengths, and a sample of inputs with torch's outputs."""

    max_error: float
    sample: dict[str, np.ndarray]


def check_retrieval(
    score: Callable[[Jagged, np.ndarray], np.ndarray], path: Path, *, num_items: int, max_history: int, seed: int
) -> Parity:
    """`score`: score_BI of the trained model, from histories and time_BM. Raises InputError when scores differ by more than
    TOLERANCE or the wrong items come."""
    session, rng = open_session(path), np.random.default_rng(seed)
    errors, sample = [], {}
    for batch in BATCHES:
        for length in (0, 1, max_history):
            history = histories(rng, batch, length, num_items)
            exclude_BE = rng.integers(0, num_items, (batch, 5))  # holds reserved ids too, as padding does
            history_BL, length_B = (t.numpy() for t in padded(history))
            time_BM = np.cumsum(rng.integers(0, 10**7, (batch, history_BL.shape[1] + 1)), axis=1)
            bias_XI = _bias(rng, 1 if length else batch, num_items)
            given = {"history": history_BL, "length": length_B, "exclude": exclude_BE, "time": time_BM, "bias": bias_XI}
            inputs = {entry.name: given[entry.name] for entry in session.get_inputs()}
            item_BK, score_BK = session.run(["item", "score"], inputs)
            expected_BI = score(history, time_BM)
            np.put_along_axis(expected_BI, exclude_BE, -np.inf, axis=1)
            expected_BI += bias_XI
            errors.append(_retrieval_error(item_BK, score_BK, expected_BI))
            if batch == 7 and length == max_history:
                expected_BK = np.take_along_axis(expected_BI, item_BK, axis=1)
                sample = {**inputs, "item": item_BK, "score": expected_BK}
    return verdict("retrieval", path, errors, sample)


def check_ranking(
    model: Ranker, path: Path, *, num_users: int, num_items: int, max_history: int, ranker_history: int,
    codes: Mapping[str, tuple[str, Jagged]], context_sizes: Sequence[tuple[str, int]], seed: int,
) -> Parity:  # fmt: skip
    """`model` is the trained Ranker; `codes`: owner and rows of each user or item feature. Raises InputError."""
    session, rng = open_session(path), np.random.default_rng(seed)
    errors, sample = [], {}
    for batch in BATCHES:
        for length in (0, 1, max_history):
            history = histories(rng, batch, length, num_items)
            user_B, item_BC = rng.integers(0, num_users, batch), rng.integers(0, num_items, (batch, 3))
            history_BL, length_B = (t.numpy() for t in padded(history))
            inputs = {"user": user_B, "history": history_BL, "length": length_B, "item": item_BC}
            if context_sizes:
                inputs["context"] = np.stack([rng.integers(0, size, batch) for _, size in context_sizes], axis=1)
            behaviour = Jagged(rng.integers(0, 2 ** len(model.design.tasks), len(history.item_E)), history.offset_U1)
            if model.design.sharing.reads_behaviours:
                inputs["behaviour"] = padded(behaviour)[0].numpy()
            if model.body.dense is not None:
                inputs["dense"] = _dense(rng, model.body.dense, item_BC.shape)
            [probability_BCT] = session.run(["probability"], inputs)
            names = [name for name, _ in context_sizes]
            recent = history.last(ranker_history), behaviour.last(ranker_history)
            expected = [_ranking_answer(model, inputs, column, recent, codes, names) for column in range(item_BC.shape[1])]
            expected_BCT = np.stack(expected, axis=1)
            errors.append(float(np.abs(probability_BCT - expected_BCT).max()))
            if batch == 7 and length == max_history:
                sample = {**inputs, "probability": expected_BCT}
    return verdict("ranking", path, errors, sample)


def _bias(rng: np.random.Generator, rows: int, num_items: int) -> np.ndarray:
    """A tenth of the items left out, for all requests alike (1 row) or for each."""
    return np.where(rng.random((rows, num_items)) < 0.1, -np.inf, 0).astype(np.float32)


def _dense(rng: np.random.Generator, features: DenseFeatures, shape: tuple[int, ...]) -> np.ndarray:
    """Values as training had them, some of them far outside."""
    mean_P, std_P = features.mean_P.cpu().numpy(), features.std_P.cpu().numpy()
    return (mean_P + 3 * std_P * rng.standard_normal((*shape, len(mean_P)))).astype(np.float32)


def histories(rng: np.random.Generator, batch: int, length: int, num_items: int) -> Jagged:
    """The first history has the length asked for, the others any up to it."""
    length_B = rng.integers(0, length + 1, batch)
    length_B[0] = length
    items = rng.integers(FIRST_ID, num_items, int(length_B.sum()))
    return Jagged(items, np.concatenate([[0], np.cumsum(length_B)]))


def as_ids(lists: Jagged) -> Ids:
    return Ids(torch.from_numpy(lists.item_E.astype(np.int64)), torch.from_numpy(lists.lengths.astype(np.int64)))


@torch.no_grad()
def retrieval_scores(
    model: nn.Module, codes: ItemCodes, similarity: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], dim: int | None,
    history: Jagged, time_BM: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """score_BI of the trained Retriever, by the path that training takes: jagged histories and TorchRec's tables."""
    device = codes.known_I.device
    ids = as_ids(history).to(device)
    item_ID = model.item_vectors(model.embeddings(codes.all()), codes.known_I)
    inside_BM = np.arange(time_BM.shape[1]) <= history.lengths[:, None]
    hidden_MD = model(ids, item_ID, torch.from_numpy(time_BM[inside_BM]).to(device))
    user_BD, item_ID = similarity(hidden_MD[(ids.length_B + 1).cumsum(0) - 1][:, :dim], item_ID[:, :dim])
    score_BI: Tensor = user_BD @ item_ID.T
    score_BI[:, :FIRST_ID] = -torch.inf
    return score_BI.cpu().numpy()


@torch.no_grad()
def _ranking_answer(
    model: Ranker, inputs: Mapping[str, np.ndarray], column: int, recent: tuple[Jagged, Jagged],
    codes: Mapping[str, tuple[str, Jagged]], context_names: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """answer_BT of the training form, for one candidate of each request; `recent`: its history and the events' behaviours."""
    user_B, item_B, (history, behaviour) = inputs["user"], inputs["item"][:, column], recent
    ones_B = torch.ones(len(user_B), dtype=torch.int64)
    ids = {"user": Ids(torch.from_numpy(user_B), ones_B), "item": Ids(torch.tensor(item_B), ones_B), "history": as_ids(history)}
    for name, (owner, rows) in codes.items():
        ids[name] = as_ids(rows.take(user_B if owner == "user" else item_B))
    ids |= {name: Ids(torch.tensor(inputs["context"][:, i]), ones_B) for i, name in enumerate(context_names)}
    dense_BP = torch.tensor(inputs["dense"][:, column]) if "dense" in inputs else torch.empty(len(user_B), 0)
    batch = Batch(ids, dense_BF=dense_BP, behaviour_N=as_ids(behaviour).value_N).to(next(model.body.parameters()).device)
    return model.design.answer(model(model.embeddings(model.look_ups(batch)), batch)).cpu().numpy()


def _retrieval_error(item_BK: np.ndarray, score_BK: np.ndarray, expected_BI: np.ndarray) -> float:
    """Largest difference of scores, of the items returned and of the K best that should have been."""
    given_BK = np.take_along_axis(expected_BI, item_BK, axis=1)
    best_BK = -np.sort(-expected_BI, axis=1)[:, : item_BK.shape[1]]
    finite_BK = np.isfinite(best_BK)
    if not (np.isfinite(score_BK) == finite_BK).all():
        return float("inf")
    both = np.abs(score_BK[finite_BK] - np.stack([given_BK[finite_BK], best_BK[finite_BK]]))
    return float(both.max(initial=0.0))


def open_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def verdict(graph: str, path: Path, errors: list[float], sample: dict[str, np.ndarray]) -> Parity:
    worst = max(errors)
    if not worst <= TOLERANCE:
        raise InputError(f"{path.name} differs from torch by {worst:.2e}, more than {TOLERANCE:.0e}: the bundle is not written")
    return Parity(worst, {f"{graph}_{name}": value for name, value in sample.items()})
