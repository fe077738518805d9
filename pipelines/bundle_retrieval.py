"""How a bundle's retrieval is stored: exact or by an index, its item table in 4, 2 or 1 bytes a number; and what that loses.

Shapes: B = requests, K = candidates, I = rows of the item table, D = width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.columns import PADDING_ID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.export.parity import Parity
from recsys.export.requests import sample_requests
from recsys.export.retrieval import shrink_file, split_query
from recsys.item_index import ItemIndex, build
from serving.bundle.bundle import INDEX_FILE, QUERY_FILE, RETRIEVAL_FILE, VECTORS_FILE
from serving.bundle.finder import Exact, Finder, Indexed, open_session

INDEXED_ABOVE = 1_000_000  # items, under `serving.index: auto`
SAMPLE = 500  # users whose candidates are compared with the exact ones
AT_ONCE = 16
FIRST_NPROBE = 4
THREADS = 1  # as a server has


@dataclass(frozen=True)
class Stored:
    index: dict[str, Any] | None  # its facts, see serving.bundle.facts.IndexFacts
    recall: float | None  # share of the exact candidates that are found; None where they are the exact ones
    parity: Parity


def store_retrieval(config: RunConfig, data: Dataset, folder: Path, vector_ID: np.ndarray, parity: Parity) -> Stored:
    """From `retrieval.onnx`, exact and in float32, to the files that are served, `vectors.npy` among them.

    `parity`, of the exact graph, is handed on with what these files give. Raises InputError where they find less than
    `serving.min_recall` of the exact candidates.
    """
    serving, path = config.serving, folder / RETRIEVAL_FILE
    stored_ID = vector_ID if serving.table == "float32" else vector_ID.astype(np.float16)
    np.save(folder / VECTORS_FILE, stored_ID)
    indexed = serving.index == "faiss" or (serving.index == "auto" and data.num_items > INDEXED_ABOVE)
    if serving.table == "float32" and not indexed:
        return Stored(None, None, parity)
    requests = sample_requests(data, config.max_history, SAMPLE, np.random.default_rng(config.seed))
    requests["bias"] = np.zeros((1, data.num_items), np.float32)
    exact_BK = _found(Exact(open_session(path, THREADS)), requests)
    if indexed:
        split_query(path, folder / QUERY_FILE, serving.table, data.num_items)
        path.unlink()
        finder, index, recall = _index(config, folder, stored_ID, exact_BK, requests)
    else:
        shrink_file(path, serving.table, data.num_items)
        finder, index = Exact(open_session(path, THREADS)), None
        recall = recall_of(_found(finder, requests), exact_BK)
    if recall < serving.min_recall:
        what, instead = ("index", "exact") if indexed else ("table", "float32")
        raise InputError(
            f"serving.{what} ({getattr(serving, what)}) finds {recall:.3f} of the exact {exact_BK.shape[1]} candidates, and "
            f"serving.min_recall is {serving.min_recall}: set serving.{what} to {instead}, or ask for less; "
            "the bundle is not written"
        )
    return Stored(index, recall, _with_outputs(parity, finder))


def recall_of(found_BK: np.ndarray, exact_BK: np.ndarray) -> float:
    """Share of the exact items that are found, over all requests; 0 pads. 1 where there are none."""
    hits = sum(np.isin(exact_K[exact_K > 0], found_K).sum() for exact_K, found_K in zip(exact_BK, found_BK, strict=True))
    return float(hits / max(1, (exact_BK > 0).sum())) if (exact_BK > 0).any() else 1.0


def _index(
    config: RunConfig, folder: Path, vector_ID: np.ndarray, exact_BK: np.ndarray, requests: Mapping[str, np.ndarray]
) -> tuple[Finder, dict[str, Any], float]:
    """Build it, and look through twice as many clusters until it finds enough, or through all."""
    clusters = build(vector_ID, folder / INDEX_FILE, seed=config.seed)
    query, nprobe = open_session(folder / QUERY_FILE, THREADS), min(FIRST_NPROBE, clusters)
    while True:
        index = ItemIndex.open(folder / INDEX_FILE, vector_ID, nprobe=nprobe, threads=THREADS)
        finder = Indexed(query, index, exact_BK.shape[1])
        recall = recall_of(_found(finder, requests), exact_BK)
        if recall >= config.serving.min_recall or nprobe == clusters:
            return finder, {"nprobe": nprobe, "clusters": clusters, "recall": recall}, recall
        nprobe = min(2 * nprobe, clusters)


def _found(finder: Finder, requests: Mapping[str, np.ndarray]) -> np.ndarray:
    """item_BK, a few requests at a time; 0 where nothing was left."""
    rows = len(requests["history"])
    parts = []
    for at in range(0, rows, AT_ONCE):
        given = {name: requests[name] if name == "bias" else requests[name][at : at + AT_ONCE] for name in finder.inputs}
        item_BK, score_BK = finder(given)
        parts.append(np.where(np.isfinite(score_BK), item_BK, PADDING_ID))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.int64)


def _with_outputs(parity: Parity, finder: Finder) -> Parity:
    given = {name: parity.sample[f"retrieval_{name}"] for name in finder.inputs}
    item_BK, score_BK = finder(given)
    return Parity(parity.max_error, {**parity.sample, "retrieval_item": item_BK, "retrieval_score": score_BK})
