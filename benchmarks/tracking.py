"""What tracking costs: `python -m benchmarks.tracking`.

1. A training run logs 100,000 values. In that same run the CPU time of everything that tracking does is counted, in the
   training thread and in tracking's own threads, and so is the wall time that the training thread spends in it, start and end
   included.
   Bar: under 2 % of the run. The same training without tracking stands beside it.
2. Values per second into the local store: through a run of `recsys.track`, by MLflow's `log_batch` and by its `log_metric`.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from pipelines import stages
from pipelines.train import train_retriever
from pipelines.workspace import Workspace, config_path, open_dataset
from recsys import track
from recsys.config import RunConfig, load
from recsys.dataset import Dataset
from recsys.simulate import Simulation, simulate
from recsys.track.monitor import SystemMonitor
from recsys.track.store import open_store
from recsys.train.distributed import process_group

VALUES = 100_000
BAR = 0.02


class Logger:
    """Reports of the training loop: as many values a step as make `VALUES` in all, and what that costs the training thread."""

    def __init__(self, run: track.Run | None):
        self.run = run
        self.logged = 0
        self.cpu_s = self.wall_s = self.longest_s = 0.0

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        if self.run is None:
            return
        wanted = VALUES * step // total_steps - self.logged
        wall, cpu = time.perf_counter(), time.thread_time()
        self.run.metrics({f"{job}/value_{number:03}": metrics["loss"] + number for number in range(wanted)}, step)
        spent = time.perf_counter() - wall
        self.cpu_s, self.wall_s = self.cpu_s + time.thread_time() - cpu, self.wall_s + spent
        self.longest_s = max(self.longest_s, spent)
        self.logged += wanted

    def validated(self, job: str, **_: Any) -> None:
        pass


def training(folder: Path, epochs: int) -> dict[str, Any]:
    """One training that is tracked and one that is not, of the same model on the same data."""
    config = load(config_path("demo"), f"retriever.fit.epochs={epochs}", f"retriever.fit.patience={epochs}")
    workspace = Workspace(folder / "run")
    simulate(Simulation(), workspace.raw)
    stages.prepare(config, workspace.raw, workspace)
    data = open_dataset(workspace, config)
    with process_group() as device:
        plain_s = _timed(lambda: _train(config, data, folder / "plain", device, Logger(None)))
        return _tracked(config, data, folder, device) | {"plain_s": plain_s}


def _tracked(config: RunConfig, data: Dataset, folder: Path, device: torch.device) -> dict[str, Any]:
    uri = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    open_store(uri)  # the first run in a folder makes the database, which is not what logging costs
    began, cpu = time.perf_counter(), time.thread_time()
    run = track.start_run("benchmark", "tracked", data="d", uri=uri, params=config.model_dump(mode="json"))
    child = run.child("retriever", "retriever")
    edges_s, edges_cpu_s = time.perf_counter() - began, time.thread_time() - cpu
    logger = Logger(child)
    with SystemMonitor(child):
        train_s = _timed(lambda: _train(config, data, folder / "tracked", device, logger))
    ending, cpu = time.perf_counter(), time.thread_time()
    child.flush()
    run.flush()
    threads_cpu_s = _cpu_of_own_threads()
    child.__exit__(None, None, None)
    run.__exit__(None, None, None)
    edges_s, edges_cpu_s = edges_s + time.perf_counter() - ending, edges_cpu_s + time.thread_time() - cpu
    run_s = time.perf_counter() - began
    (below,) = track.children(run.run_id, uri=uri)
    names = [name for name in below.metrics if "value_" in name]
    stored = sum(len(track.metric_histories([below.id], name, uri=uri)[below.id]) for name in names)
    cpu_s = logger.cpu_s + edges_cpu_s + threads_cpu_s
    return {
        "values": logger.logged, "stored": stored, "run_s": run_s, "train_s": train_s,
        "cpu_s": cpu_s, "training_thread_cpu_s": logger.cpu_s, "tracking_threads_cpu_s": threads_cpu_s,
        "start_and_end_s": edges_s,
        "training_thread_wall_s": logger.wall_s + edges_s, "longest_call_ms": logger.longest_s * 1000,
        "cpu_share": cpu_s / run_s, "wall_share": (logger.wall_s + edges_s) / run_s,
    }  # fmt: skip


def _train(config: RunConfig, data: Dataset, out: Path, device: torch.device, logger: Logger) -> None:
    train_retriever(config, data, out, device=device, progress=logger)


def _cpu_of_own_threads() -> float:
    """CPU seconds of tracking's threads so far; the monitor's has ended, and took some milliseconds a sample."""
    own = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("recsys")}
    return sum(each.user_time + each.system_time for each in psutil.Process().threads() if each.id in own)


def throughput(folder: Path, values: int) -> dict[str, float]:
    """Values per second until they are in the store."""
    from mlflow.entities import Metric

    uri = f"sqlite:///{folder / 'speed' / 'mlflow.db'}"
    client = open_store(uri)
    names = [f"m{number % 20:02}" for number in range(values)]
    plain = client.create_run(client.create_experiment("plain")).info.run_id

    def through_track() -> None:
        with track.start_run("speed", "r", data="d", uri=uri) as run:
            for step, name in enumerate(names):
                run.metric(name, float(step), step)

    def by_batches() -> None:
        for start in range(0, values, 1000):
            some = enumerate(names[start : start + 1000], start)
            client.log_batch(plain, metrics=[Metric(name, float(step), step, step) for step, name in some])

    def one_by_one() -> None:
        for step, name in enumerate(names[: values // 50]):
            client.log_metric(plain, f"one_{name}", float(step), step=step)

    return {
        "recsys.track": values / _timed(through_track),
        "log_batch of 1000": values / _timed(by_batches),
        "log_metric": values // 50 / _timed(one_by_one),
    }


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=100, help="of the demo's retriever; 100 are about a minute")
    parser.add_argument("--only", choices=["training", "throughput"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "training":
            for name, speed in throughput(Path(folder), VALUES // 2).items():
                print(f"{name:20} {speed:10,.0f} values/s")
        if given.only != "throughput":
            found = training(Path(folder), given.epochs)
            print(json.dumps(found, indent=1))
            ok = found["cpu_share"] < BAR and found["stored"] == VALUES
            print(
                f"{found['cpu_share']:.2%} of the run's time is tracking's ({BAR:.0%} is the bar): {'held' if ok else 'missed'}"
            )
            raise SystemExit(not ok)


if __name__ == "__main__":
    main()
