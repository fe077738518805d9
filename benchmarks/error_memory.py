"""Does a memory of recent errors mend a ranker between two trainings? Test, then write, over the later part of a log.

    python -m benchmarks.error_memory --ml-1m FOLDER

A retriever and a ranker are trained on the first 60 % of the log and then frozen. The rows of the next 20 % and of the last
20 % are predicted in order of time: a row's error enters the memory once `window_s` has passed since, and no prediction sees it
before. The next 20 % choose the settings (lowest LogLoss); the last 20 %, with a memory that begins empty, are what the table
tells, each training seed with projections of its own. ml-1m (passed over without its folder): a like is rating >= 4; time is
that of the ratings, which users give in one sitting. Simulated: `recsys simulate` with drifting tastes, a
row is an item that was shown.

LogLoss and AUC are over all rows, NDCG@10 over pages (what a user was shown at once, in ml-1m what they rated in ten minutes),
averaged by user. Intervals: 95 %, users drawn anew, the same draws for both ways; "shown" asks all seeds to agree, too.
Shapes: X = rows, D = numbers of a key, U = users, P = pages, R = draws, S = seeds.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import error_memory_stream as stream
from benchmarks import measure
from benchmarks.table import publish
from recsys.error_memory import ErrorMemory, ErrorMemorySpec, compensated, taste_keys
from recsys.metrics import paired
from recsys.metrics.classification import auc
from recsys.metrics.probability import log_loss
from recsys.metrics.resample import draw_users
from recsys.metrics.significance import percentile_interval

REPLICATES, CUT, PAGE_MS = 500, 10, 600_000
SPLIT = "data.split={kind: time, valid_share: 0.2, test_share: 0.2}"
ENCODER = "retriever.encoder={kind: sasrec, dim: 32, blocks: 1, heads: 1, dropout: 0.2}"
RETRIEVER_FIT = "retriever.fit={epochs: 6, batch_size: 64, learning_rate: 1.0e-3, embedding_learning_rate: 0.02}"
RANKER_FIT = "ranker.fit={epochs: 3, batch_size: 1024, learning_rate: 1.0e-3, embedding_learning_rate: 0.02}"
ML_1M = [SPLIT, "max_history=50", ENCODER, RETRIEVER_FIT, "ranker.tasks={like: 1}", RANKER_FIT]
SIMULATED = [SPLIT, ENCODER, RETRIEVER_FIT]
GRID = {"item_share": (0.0, 0.3, 1.0), "strength": (0.3, 0.6), "prior": (20, 100)}
WAYS = ("without", "with")
Columns = dict[str, np.ndarray]


def columns_of(path: str, task: str) -> Columns:
    """The stream's rows with the task's label; `page_X` numbers the pages."""
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    column = found["tasks"].tolist().index(task)
    found["p_X"], found["y_X"] = found.pop("probability_XT")[:, column], found.pop("label_XT")[:, column]
    kept_X = ~np.isnan(found["y_X"])
    return {name: values[kept_X] if name.endswith(("_X", "_XH")) else values for name, values in found.items()}


def keys(rows: Columns, spec: ErrorMemorySpec) -> np.ndarray:
    """key_XD as the endpoint makes them, from the history as it was then."""
    unit_ID, parts = rows["unit_ID"], []
    for item, history_H, length in zip(rows["item_X"], rows["history_XH"], rows["length_X"], strict=True):
        newest_H = history_H[max(length - spec.history, 0) : length]
        parts.append(taste_keys(unit_ID[newest_H], unit_ID[item][None], spec.item_share))
    return np.concatenate(parts)


def expected(rows: Columns, spec: ErrorMemorySpec, key_XD: np.ndarray, step_ms: int) -> np.ndarray:
    """error_X that the memory expects just before each row; rows of one step see the same memory."""
    memory, window_ms, written = ErrorMemory(spec, key_XD.shape[1], 1), int(spec.window_s * 1000), 0
    time_X, error_X = rows["time_X"], (rows["y_X"] - rows["p_X"])[:, None]
    found_X = np.zeros(len(time_X), np.float32)
    begin_X = np.flatnonzero(np.diff(time_X // step_ms, prepend=-1) > 0)
    for begin, end in itertools.pairwise([*begin_X.tolist(), len(time_X)]):
        known = int(np.searchsorted(time_X, time_X[begin] - window_ms))
        if known > written:
            memory.write(key_XD[written:known], error_X[written:known], owner=0)
            written = known
        found_X[begin:end] = memory.errors(key_XD[begin:end])[:, 0]
    return found_X


def chosen(rows: Columns, base: ErrorMemorySpec, step_ms: int) -> ErrorMemorySpec:
    """The settings of the grid with the lowest LogLoss."""
    best: tuple[float, ErrorMemorySpec] | None = None
    for share in GRID["item_share"]:
        key_XD = keys(rows, base.model_copy(update={"item_share": share}))
        for prior in GRID["prior"]:
            spec = base.model_copy(update={"item_share": share, "prior": prior})
            error_X = expected(rows, spec, key_XD, step_ms)
            for strength in GRID["strength"]:
                loss = log_loss(compensated(rows["p_X"], error_X, strength), rows["y_X"])
                if best is None or loss < best[0]:
                    best = loss, spec.model_copy(update={"strength": strength})
    assert best is not None
    return best[1]


def page_ndcg(rows: Columns, score_X: np.ndarray, page_X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ndcg_P of pages with a yes and a no, and whose they are."""
    order_X = np.lexsort((-score_X, page_X))
    begin_P = np.flatnonzero(np.diff(page_X[order_X], prepend=-1))
    values, users = [], []
    for begin, end in itertools.pairwise([*begin_P.tolist(), len(page_X)]):
        mine = order_X[begin:end]
        gain = rows["y_X"][mine]
        if 0 < gain.sum() < len(gain):
            discount = 1 / np.log2(np.arange(2, 2 + len(gain)))
            values.append((gain * discount)[:CUT].sum() / (np.sort(gain)[::-1] * discount)[:CUT].sum())
            users.append(rows["user_X"][mine[0]])
    return np.array(values), np.array(users)


def judged(rows: Columns, score_X: np.ndarray, page_ms: int, times_RU: np.ndarray, user_X: np.ndarray) -> dict[str, Any]:
    """By metric: the value, and that of each draw of users."""
    keyed = np.stack([rows["user_X"], rows["time_X"] // page_ms], axis=1)
    page_X = np.unique(keyed, axis=0, return_inverse=True)[1].ravel()
    p_X = np.clip(score_X.astype(np.float64), 1e-7, 1 - 1e-7)
    loss_X = -np.where(rows["y_X"] == 1, np.log(p_X), np.log1p(-p_X))
    ndcg_P, whose_P = page_ndcg(rows, score_X, page_X)
    known_U = np.unique(rows["user_X"])
    place_P = np.searchsorted(known_U, whose_P)
    mean_U = np.bincount(place_P, ndcg_P, len(known_U)) / np.maximum(np.bincount(place_P, minlength=len(known_U)), 1)
    has_U = np.flatnonzero(np.bincount(place_P, minlength=len(known_U)))
    return {
        "LogLoss": (loss_X.mean(), paired.drawn_mean(loss_X, user_X, times_RU)),
        "AUC": (auc(score_X, rows["y_X"]), paired.drawn_auc(score_X, rows["y_X"], user_X, times_RU)),
        f"NDCG@{CUT}": (mean_U[has_U].mean(), paired.drawn_mean(mean_U[has_U], has_U, times_RU)),
    }


def replayed(paths: list[str], task: str, window_s: float, page_ms: int) -> dict[str, Any]:
    """One log: the settings that were chosen with the first seed, and by metric both ways and their difference."""
    step_ms = max(page_ms, 60_000) if page_ms > 1 else 60_000
    found: dict[str, dict[str, list[Any]]] = {way: {} for way in WAYS}
    spec, facts = None, {}
    for seed, path in enumerate(paths):
        rows = columns_of(path, task)
        parts = [
            {name: values[rows["test_X"] == part] if name.endswith(("_X", "_XH")) else values for name, values in rows.items()}
            for part in (False, True)
        ]
        if spec is None:
            spec = chosen(parts[0], ErrorMemorySpec(tasks=(task,), window_s=window_s), step_ms)
        test, own = parts[1], spec.model_copy(update={"seed": seed})
        error_X = expected(test, own, keys(test, own), step_ms)
        scores = {"without": test["p_X"], "with": compensated(test["p_X"], error_X, own.strength)}
        user_X = np.unique(test["user_X"], return_inverse=True)[1]
        times_RU = draw_users(int(user_X.max()) + 1, REPLICATES, np.random.default_rng(0))
        for way, score_X in scores.items():
            for metric, values in judged(test, score_X, page_ms, times_RU, user_X).items():
                found[way].setdefault(metric, []).append(values)
        facts = {"rows": len(user_X), "users": times_RU.shape[1], "base_rate": float(test["y_X"].mean())}
    assert spec is not None
    return {
        **facts,
        "spec": {name: getattr(spec, name) for name in GRID},
        "metrics": {m: _difference(found, m) for m in found["with"]},
    }


def _difference(found: dict[str, dict[str, list[Any]]], metric: str) -> dict[str, Any]:
    """Means over seeds, the mean difference with its interval, and whether all seeds agree and it leaves out 0."""
    value = {way: np.array([v for v, _ in found[way][metric]]) for way in WAYS}
    drawn_R = np.mean([b - a for (_, a), (_, b) in zip(found["without"][metric], found["with"][metric], strict=True)], axis=0)
    low, high = percentile_interval(drawn_R[~np.isnan(drawn_R)], 0.95)
    of_seed_S = value["with"] - value["without"]
    agree = bool((of_seed_S > 0).all() or (of_seed_S < 0).all())
    return {
        **{way: float(each.mean()) for way, each in value.items()}, "difference": float(of_seed_S.mean()), "low": float(low),
        "high": float(high), "of_seeds": of_seed_S.round(6).tolist(), "shown": agree and bool(low > 0 or high < 0),
    }  # fmt: skip


def latency(candidates: int = 200, width: int = 64, lists: int = 3000, repeats: int = 300) -> dict[str, float]:
    """Microseconds that a full memory adds to a question, and that a list of ten takes to be written."""
    rng = np.random.default_rng(0)
    unit_ID = rng.normal(size=(5000, width)).astype(np.float32)
    unit_ID /= np.linalg.norm(unit_ID, axis=1, keepdims=True)
    spec = ErrorMemorySpec(tasks=("click",))
    memory = ErrorMemory(spec, 2 * width, 1)

    def key(items: int) -> np.ndarray:
        return taste_keys(
            unit_ID[rng.integers(5000, size=spec.history)], unit_ID[rng.integers(5000, size=items)], spec.item_share
        )

    began = time.perf_counter()
    for _ in range(lists):
        memory.write(key(10), rng.normal(0, 0.3, (10, 1)).astype(np.float32), owner=1)
    write_us = (time.perf_counter() - began) / lists * 1e6
    probability_KT, took = rng.random((candidates, 1)).astype(np.float32), []
    for _ in range(repeats):
        began = time.perf_counter()
        memory.compensated(probability_KT, key(candidates))
        took.append((time.perf_counter() - began) * 1e6)
    return {"read_p50_us": statistics.median(took), "write_list_us": write_us, "mib": memory.nbytes / 2**20}


def run_parts(args: argparse.Namespace) -> dict[str, Any]:
    work, found = args.work.resolve(), {}
    world = {"users": 1000, "items": 200, "events": 150_000, "days": 30, "drift": 0.1, "seed": 3}
    raw = stream.simulated(work / "sim-raw", **world)
    paths = [stream.make("demo", str(raw), str(work / "sim"), SIMULATED, seed) for seed in args.seeds]
    found["simulated, 10 min"] = replayed(paths, "click", 600, 1)
    if args.ml_1m is None:
        print("ml-1m is passed over: name its folder with --ml-1m")
        return found
    raw = work / "ml-raw"
    if not raw.exists():
        stream.ml_1m(args.ml_1m, raw, args.users)
    paths = [stream.make("ml-1m", str(raw), str(work / "ml"), ML_1M, seed) for seed in args.seeds]
    for minutes in (10, 60, 1440):
        found[f"ml-1m, {minutes} min"] = replayed(paths, "like", minutes * 60, PAGE_MS)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ml-1m", type=Path, help="folder of the ml-1m data set; without it only the simulated log is run")
    parser.add_argument("--users", type=int, default=1500, help="of ml-1m, drawn at random")
    parser.add_argument("--work", type=Path, default=measure.OUT / "error_memory", help="what is trained is kept there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the training and the projections")
    found, speed = run_parts(parser.parse_args()), latency()
    table = [
        [log, metric, *(f"{each[way]:.4f}" for way in WAYS), f"{each['difference']:+.5f}",
         f"{each['low']:+.5f} .. {each['high']:+.5f}", "yes" if each["shown"] else "no"]
        for log, result in found.items() for metric, each in result["metrics"].items()
    ]  # fmt: skip
    columns = ("log, delay of a label", "metric", *WAYS, "difference", "95 % interval", "shown")
    rows = [[name, f"{value:.1f}"] for name, value in speed.items()]
    publish(
        "error_memory",
        [("A frozen ranker without and with the error memory", columns, table), ("What it takes", ("what", "value"), rows)],
        {"logs": found, "latency": speed},
    )


if __name__ == "__main__":
    main()
