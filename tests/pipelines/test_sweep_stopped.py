"""Sweeps whose workers or command are killed or stopped: no trial is lost, and no process is left alone."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import Cli
from planted_data import planted_config
from sweep_world import WORDS, StopsAt, runs_of, trials_of

from pipelines.sweeping.study import number_of
from pipelines.sweeping.trial import Outcome, Task, train_trial
from pipelines.sweeping.workers import train_in_processes
from recsys.config import RunConfig, load
from recsys.dataset import Dataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:Please use DTensor"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def start(folder: Path, store: str, *words: str) -> subprocess.Popen[bytes]:
    """The command in a process of its own, which can be killed."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]), "MLFLOW_TRACKING_URI": store, "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    log = (folder / "log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *WORDS, *words], cwd=folder, env=environment, stdout=log, stderr=log,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background has it ignored
    )  # fmt: skip


def wait_for(what: Callable[[], Any], log: Path, *, limit_s: float = 300) -> Any:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_killed_workers_and_a_killed_command_lose_no_trial(sweep: Cli, cli: Cli, tmp_path: Path, store: str) -> None:
    words = [
        "--search",
        "retriever.fit.learning_rate: {low: 1e-3, high: 1e-2}",
        "--trials",
        "4",
        "--prune",
        "none",
        "--name",
        "two",
    ]
    words += ["--set", "retriever.fit.epochs=30", "--set", "retriever.fit.patience=30"]
    log, folder = tmp_path / "log", tmp_path / "ws/sweep/two"
    with start(tmp_path, store, *words, "--workers", "2") as command:
        try:
            parent = psutil.Process(command.pid)
            wait_for(lambda: len(list(folder.glob("trials/*/retriever.resume/*"))) >= 2, log)  # both are training
            workers = [each for each in parent.children() if "spawn_main" in " ".join(each.cmdline())]
            assert len(workers) == 2
            workers[0].send_signal(signal.SIGKILL)
            wait_for(lambda: "its worker was killed by SIGKILL" in log.read_text(), log)
            wait_for(lambda: "after 30 epochs" in log.read_text(), log)
            wait_for(lambda: any(each.state.name == "RUNNING" for each in trials_of(folder)), log)
            left = parent.children()
            command.kill()
        finally:
            command.kill()
    psutil.wait_procs(left, timeout=60)
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in left)  # none is left alone

    before = trials_of(folder)
    finished = {number_of(each): each.values for each in before if each.state.name == "COMPLETE"}
    assert 1 <= len(finished) < 4
    done = sweep(*words, "--json")
    assert not done.failed, done.said
    assert "tried again, since they were stopped: trial " in done.said
    found = json.loads(done.out)
    assert found["counts"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert {number: found_of(found, number)["valid"] for number in finished} == {n: v[0] for n, v in finished.items()}
    assert all(found_of(found, number_of(each))["parameters"] == each.params for each in before if each.params)
    trials = runs_of("two")[1]
    assert [each.tags["trial"] for each in trials] == [str(each["trial"]) for each in found["trials"]]
    assert {each.status for each in trials} == {"FINISHED"}
    # one that was killed in its midst has become what it would have been
    config = load(Path("planted.yaml"), "retriever.fit.epochs=30", "retriever.fit.patience=30")
    task, data = Task(0, "retriever", config, tmp_path / "plain"), Dataset(tmp_path / "ws/dataset")
    plain = train_trial(task, data, torch.device("cpu"), StopsAt(99))
    assert found["config_itself"]["valid"] == plain.value


def found_of(found: dict[str, Any], number: int) -> dict[str, Any]:
    return next(each for each in found["trials"] if each["trial"] == number)


def test_ctrl_c_ends_the_sweep_and_says_how_to_go_on(sweep: Cli, tmp_path: Path, store: str) -> None:
    words = ["--search", "retriever.fit.learning_rate: {low: 1e-3, high: 1e-2}", "--name", "stopped"]
    words += ["--set", "retriever.fit.epochs=2000", "--set", "retriever.fit.patience=2000"]
    log = tmp_path / "log"
    with start(tmp_path, store, *words) as command:
        try:
            wait_for(lambda: list((tmp_path / "ws/sweep/stopped").glob("trials/*/retriever.resume/*")), log)
            command.send_signal(signal.SIGINT)
            assert command.wait(timeout=60) == 130
        finally:
            command.kill()
    said = " ".join(log.read_text().split())
    assert "stopped after 0 of 20 trials: the same command goes on from there" in said
    assert runs_of("stopped")[0].status == "KILLED"
    assert [each.status for each in runs_of("stopped")[1]] == ["KILLED"]


@dataclass
class Endless:
    """A source whose first trial never ends, until its first validation stops everything."""

    config: RunConfig
    folder: Path

    def next(self) -> Task | None:
        return Task(0, "retriever", self.config, self.folder / "trial")

    def stops(self, task: Task, epoch: int, value: float) -> bool:
        raise KeyboardInterrupt

    def tell(self, task: Task, outcome: Outcome) -> None:
        raise AssertionError(outcome)

    def lost(self, task: Task, how: str) -> None:
        raise AssertionError(how)


def test_workers_end_with_the_process_that_started_them(planted: Dataset, tmp_path: Path) -> None:
    config, alive = planted_config({"epochs": 5000, "patience": 5000}), tmp_path / "alive"
    with pytest.raises(KeyboardInterrupt):
        train_in_processes(Endless(config, tmp_path), planted.folder, workers=1, alive=alive)
    with alive.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
    assert not (tmp_path / "trial" / "retriever").exists()
