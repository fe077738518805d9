"""What smaller item tables and an index cost and gain: `python -m benchmarks.tables WORKSPACE [--items 100000 1000000]`.

Quality: on a run's own checkpoint and test split, the lists of each form against the exact float32 graph's. Time, disk and
memory: on catalogues of the given sizes, whose vectors have the covariance of the run's own, clusters and lengths that differ.

Shapes: B = requests, L = history, I = rows of the item table, D = width, K = candidates.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import publish

KINDS = ("float32", "float16", "int8", "faiss")
K, LENGTH, RUNS, QUERIES = 200, 50, 30, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="a run of the demo config, with dataset and checkpoints")
    parser.add_argument("--items", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(_measure(Path(given.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        quality, vector_ID = _quality(given.workspace, Path(folder) / "own")
        speed = {items: _speed(vector_ID, items, Path(folder) / str(items), given.workspace) for items in given.items}
    rows = [
        [kind, *(f"{found[name]:.4f}" for name in ("overlap@10", "overlap@200", "ndcg@10"))] for kind, found in quality.items()
    ]
    tables: list[Any] = [("Lists of the run's test users", ("form", "overlap@10", "overlap@200", "NDCG@10"), rows)]
    columns = ("form", "1 request ms", "ratio", "16 requests ms", "ratio", "disk MiB", "memory MiB", "open s", "recall@200")
    for items, found in speed.items():
        base = found["float32"]
        lines = [
            [
                kind, f"{each['ms_1']:.2f}", f"{each['ms_1'] / base['ms_1']:.2f}", f"{each['ms_16']:.2f}",
                f"{each['ms_16'] / base['ms_16']:.2f}", f"{each['disk_mib']:.0f}", f"{each['memory_mib']:.0f}",
                f"{each['open_s']:.2f}", f"{each['recall']:.3f}",
            ]
            for kind, each in found.items()
        ]  # fmt: skip
        tables.append((f"{items:,} items x {vector_ID.shape[1]}, one thread", columns, lines))
    publish("tables", tables, {"quality": quality, "speed": speed})


def _quality(workspace: Path, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Of each form: shares of the exact lists and NDCG@10 of the users' one held-out item, which comes after their history."""
    from safetensors.torch import load_file

    from pipelines import models
    from pipelines.workspace import Workspace, config_path, served_part
    from recsys.config import load
    from recsys.dataset import Dataset
    from recsys.train.loop import MODEL_FILE

    config, place = load(config_path("demo")), Workspace(workspace)
    data = Dataset(place.dataset)
    graph = models.retrieval_graph(config, data, load_file(place.checkpoint(served_part(config, "retriever")) / MODEL_FILE))
    requests, item_B = _held_out(data, config.max_history)
    finders = write_forms(graph, config.max_history, folder, requests)
    found = {
        kind: np.concatenate([_ask(folder, kind, requests, at)[0] for at in range(0, len(item_B), 16)]) for kind in finders
    }
    return {
        kind: {
            "overlap@10": _overlap(item_BK[:, :10], found["float32"][:, :10]),
            "overlap@200": _overlap(item_BK, found["float32"]),
            "ndcg@10": float(((item_BK[:, :10] == item_B[:, None]) / np.log2(np.arange(10) + 2)).sum(axis=1).mean()),
        }
        for kind, item_BK in found.items()
    }, graph.scored_ID.numpy()


def _held_out(data: Any, max_history: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Requests whose answer is the first test event of a user, that comes after the history and is not in it."""
    from recsys.columns import TEST

    start_U, length_U = data.events(TEST)
    user_B = np.flatnonzero((length_U > 0) & (start_U > data.start_U))
    item_B, begin_B = data.item_E[start_U[user_B]], np.maximum(data.start_U[user_B], start_U[user_B] - max_history)
    length_B = start_U[user_B] - begin_B
    history_BL = np.zeros((len(user_B), max_history), np.int64)
    history_BL[np.arange(max_history) < length_B[:, None]] = np.concatenate(
        [data.item_E[a:b] for a, b in zip(begin_B, start_U[user_B], strict=True)]
    )
    new_B = ~(history_BL == item_B[:, None]).any(axis=1)
    time_BM = np.zeros((len(user_B), max_history + 1), np.int64)
    given = {"history": history_BL, "length": length_B, "exclude": history_BL, "time": time_BM}
    requests = {name: value[new_B] for name, value in given.items()}
    return {**requests, "bias": np.zeros((1, data.num_items), np.float32)}, item_B[new_B]


def write_forms(graph: Any, max_history: int, folder: Path, requests: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """KIND.onnx of each table, and the files of an index that finds 95 % of the exact candidates of `requests`."""
    from pipelines.bundle_retrieval import recall_of
    from recsys.export.retrieval import export_retrieval, shrink_file, split_query
    from recsys.item_index import build

    folder.mkdir(parents=True)
    vector_ID = graph.scored_ID.numpy()
    rows = len(vector_ID)
    export_retrieval(graph, max_history, rows, folder / "float32.onnx")
    for kind in ("float16", "int8"):
        (folder / f"{kind}.onnx").write_bytes((folder / "float32.onnx").read_bytes())
        shrink_file(folder / f"{kind}.onnx", kind, rows)
    split_query(folder / "float32.onnx", folder / "faiss.onnx", "float32", rows)
    np.save(folder / "vectors.npy", vector_ID)
    began_s = time.perf_counter()
    clusters = build(vector_ID, folder / "faiss.index", seed=0)
    facts = {"clusters": clusters, "nprobe": min(4, clusters), "build_s": time.perf_counter() - began_s}
    few = {name: value if name == "bias" else value[:QUERIES] for name, value in requests.items()}
    exact_BK = np.concatenate([_ask(folder, "float32", few, at)[0] for at in range(0, len(few["history"]), 16)])
    while True:
        (folder / "facts.json").write_text(json.dumps(facts))
        _opened.pop((folder, "faiss"), None)
        found_BK = np.concatenate([_ask(folder, "faiss", few, at)[0] for at in range(0, len(few["history"]), 16)])
        if recall_of(found_BK, exact_BK) >= 0.95 or facts["nprobe"] == clusters:
            return KINDS
        facts["nprobe"] = min(2 * facts["nprobe"], clusters)


_opened: dict[tuple[Path, str], Any] = {}


def _finder(folder: Path, kind: str) -> Any:
    from recsys.item_index import ItemIndex
    from serving.bundle.finder import Exact, Indexed, open_session

    if (folder, kind) not in _opened:
        session = open_session(folder / f"{kind}.onnx", 1)
        if kind != "faiss":
            _opened[folder, kind] = Exact(session)
        else:
            facts, vector_ID = json.loads((folder / "facts.json").read_text()), np.load(folder / "vectors.npy", mmap_mode="r")
            index = ItemIndex.open(folder / "faiss.index", vector_ID, nprobe=facts["nprobe"])
            _opened[folder, kind] = Indexed(session, index, min(K, len(vector_ID) - 2))
    return _opened[folder, kind]


def _ask(
    folder: Path, kind: str, requests: Mapping[str, np.ndarray], at: int, count: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    finder = _finder(folder, kind)
    return finder({name: requests[name] if name == "bias" else requests[name][at : at + count] for name in finder.inputs})


def _overlap(found_BK: np.ndarray, exact_BK: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found_BK, exact_BK, strict=True)]))


def _speed(own_ID: np.ndarray, items: int, folder: Path, workspace: Path) -> dict[str, Any]:
    """Each form in a process of its own."""
    import torch

    from recsys.columns import FIRST_ID
    from recsys.models.retriever import RetrievalGraph
    from recsys.models.sasrec import SASRec

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    vector_ID = torch.from_numpy(_catalogue(own_ID[FIRST_ID:], items + FIRST_ID, rng))
    graph = RetrievalGraph(SASRec(dim=vector_ID.shape[1], blocks=2, heads=2), LENGTH, vector_ID, K).eval()
    requests: dict[str, Any] = {
        "history": rng.integers(FIRST_ID, items, (QUERIES, LENGTH)), "length": rng.integers(1, LENGTH + 1, QUERIES),
        "exclude": rng.integers(FIRST_ID, items, (QUERIES, 60)), "bias": np.zeros((1, items + FIRST_ID), np.float32),
    }  # fmt: skip
    write_forms(graph, LENGTH, folder, requests)
    np.savez(folder / "requests.npz", **requests)
    found: dict[str, Any] = {}
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.tables", str(workspace), "--child", str(folder / kind)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        found[kind] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
        found[kind]["recall"] = _overlap(np.load(folder / f"{kind}.npy"), np.load(folder / "float32.npy"))
    found["faiss"] |= json.loads((folder / "facts.json").read_text())
    _opened.clear()
    return found


def _catalogue(own_ID: np.ndarray, items: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the variance between 5,000 clusters, whose sizes follow a power law, half within them."""
    dim = own_ID.shape[1]
    root_DD = np.linalg.cholesky(np.cov(own_ID.T.astype(np.float64)) + 1e-9 * np.eye(dim)).T
    centre_CD = rng.normal(size=(5_000, dim)) @ root_DD
    cluster_I = rng.zipf(1.2, size=items) % len(centre_CD)
    vector_ID = own_ID.mean(axis=0) + (centre_CD[cluster_I] + rng.normal(size=(items, dim)) @ root_DD) * np.sqrt(0.5)
    return vector_ID.astype(np.float32)


def _measure(path: Path) -> dict[str, float]:
    import psutil

    import recsys.item_index  # noqa: F401
    import serving.bundle.finder  # noqa: F401  # what importing takes is not the table's

    folder, kind = path.parent, path.name
    if kind == "faiss":
        import faiss  # noqa: F401
    requests, process = dict(np.load(folder / "requests.npz")), psutil.Process()
    before, began_s = process.memory_info().rss, time.perf_counter()
    _finder(folder, kind)
    open_s, found = time.perf_counter() - began_s, {}
    for batch in (1, 16):
        times_s = []
        for run in range(RUNS + 3):
            began_s = time.perf_counter()
            _ask(folder, kind, requests, run % (QUERIES - batch), batch)
            times_s.append(time.perf_counter() - began_s)
        found[f"ms_{batch}"] = float(np.median(times_s[3:]) * 1000)
    np.save(folder / f"{kind}.npy", np.concatenate([_ask(folder, kind, requests, at)[0] for at in range(0, QUERIES, 16)]))
    files = [folder / f"{kind}.onnx", *([folder / "faiss.index", folder / "vectors.npy"] if kind == "faiss" else [])]
    disk = sum(file.stat().st_size for file in files)
    memory = process.memory_info().rss - before
    return {**found, "open_s": open_s, "disk_mib": disk / 2**20, "memory_mib": memory / 2**20}


if __name__ == "__main__":
    main()
