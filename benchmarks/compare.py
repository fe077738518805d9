"""How long `recsys compare` takes, process start included, on a store with many runs whose users' values are kept.

python -m benchmarks.compare                          # 200 runs of 6,040 users
python -m benchmarks.compare --html                   # the page, too
python -m benchmarks.compare --keep out/compare       # leave the store there, and take it the next time
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import publish

METRICS = ("HR", "NDCG", "MRR", "MAP", "Recall", "Precision")
KS = (10, 20, 50)
FLOORS = ("popularity", "item-knn", "transitions")
TASKS = ("click", "like")
STAGES = ("retriever", "ranker", "evaluate")
DONE = "done"


def fill(folder: Path, runs: int, users: int, params: int = 200) -> str:
    """A SQLite store of runs as the pipeline leaves them, with the runs of their stages; returns its address."""
    import polars as pl

    from recsys import track
    from recsys.artefact import fingerprint

    store = f"sqlite:///{folder / 'mlflow.db'}"
    if (folder / DONE).exists():
        return store
    rng = np.random.default_rng(0)
    hard_U = rng.normal(size=users)
    document = {"split": {"kind": "time"}, "ks": list(KS), "seen_items": "removed"}
    rules = {**document, "hash": fingerprint(document)}
    settings = {f"retriever.part{number // 20}.key{number}": "0.001" for number in range(params)}
    for number in range(runs):
        place_U = np.exp(3 + number / runs * 0.3 + 1.2 * hard_U + 0.8 * rng.normal(size=users)).astype(int) + 1
        values = {f"{metric}@{k}": _value(metric, place_U, k) for k in KS for metric in METRICS}
        served = pl.DataFrame({"user": np.arange(users), **values}).with_columns(model=pl.lit("model"))
        tables = [served, *(served.with_columns(model=pl.lit(floor)) for floor in FLOORS)]
        means = {name: float(value_U.mean()) for name, value_U in values.items()}
        metrics = {f"test/{name}": value for name, value in means.items()}
        metrics |= {f"floor/{floor}/{name}": value / 2 for floor in FLOORS for name, value in means.items()}
        metrics |= {f"test/{name}/{task}": 0.7 for name in ("AUC", "GAUC", "LogLoss", "ECE") for task in TASKS}
        metrics |= {"cost/train_s": 60.0 + number, "export/latency_p50_ms": 1.0, "export/bundle_mib": 3.0}
        tags = {track.PROTOCOL: f"time split [{rules['hash']}]", "config": "made"}
        with track.start_run("recsys", f"run-{number}", data="d1", uri=store, params=settings, tags=tags) as run:
            run.metrics(metrics)
            pl.concat(tables).write_parquet(folder / "per_user.parquet")
            run.artefact(folder / "per_user.parquet", "metrics")
            run.document({"protocol": rules, "retrieval": {"users": users, "model": means}}, "metrics/metrics.json")
        for stage in STAGES:
            parent = {"stage": stage, "mlflow.parentRunId": run.run_id}
            with track.start_run("recsys", stage, data="d1", uri=store, tags=parent) as child:
                for step in range(20):
                    child.metric(f"{stage}/valid/NDCG@10", 0.1 + step / 1000, step)
        print(f"\r{number + 1} of {runs} runs", end="", file=sys.stderr, flush=True)
    (folder / DONE).touch()
    return store


def _value(metric: str, place_U: np.ndarray, k: int) -> np.ndarray:
    """With one item left out, at this place."""
    found_U = place_U <= k
    match metric:
        case "NDCG":
            return np.where(found_U, 1 / np.log2(place_U + 1), 0.0)
        case "MRR" | "MAP":
            return np.where(found_U, 1 / place_U, 0.0)
        case "Precision":
            return found_U / k
        case _:
            return found_U.astype(float)


def timed(store: str, *options: str) -> tuple[float, int]:
    """Seconds of the command as a process of its own, and the characters that it prints."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pipelines.cli", "compare", "--store", store, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start, len(done.stdout) + len(done.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--html", action="store_true", help="time the page, too")
    parser.add_argument("--keep", type=Path, help="folder of the store, which is filled where it is not")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.keep or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        store = fill(folder, args.runs, args.users)
        many = ("--limit", str(args.runs))
        kinds: dict[str, tuple[str, ...]] = {"six newest": (), "all": many, "all, JSON": (*many, "--json")}
        if args.html:
            kinds["all, page"] = (*many, "--html", str(folder / "compare.html"), "--no-log")
        facts: dict[str, Any] = {}
        for name, options in kinds.items():
            found = [timed(store, *options) for _ in range(args.repeats)]
            facts[name] = {"seconds": statistics.median(seconds for seconds, _ in found), "characters": found[0][1]}
    rows = [[name, f"{each['seconds']:.2f}", f"{each['characters']:,}"] for name, each in facts.items()]
    title = f"`recsys compare`, {args.runs} runs of {args.users:,} users, median of {args.repeats}"
    publish("compare", [(title, ["runs", "seconds", "characters"], rows)], {"runs": args.runs, "users": args.users, **facts})


if __name__ == "__main__":
    main()
