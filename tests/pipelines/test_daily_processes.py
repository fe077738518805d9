"""A day that trains in two processes of torchrun, over gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daily_world import World, day
from safetensors.torch import load_file

from pipelines.workspace import Workspace
from recsys import track
from recsys.artefact import read_manifest
from recsys.errors import InputError
from recsys.train.loop import HISTORY_FILE, MODEL_FILE

pytestmark = [pytest.mark.filterwarnings("ignore:Please use DTensor"), pytest.mark.usefixtures("joined")]
TWO = "daily.processes=2"
TABLE = "embeddings.items.collection.embeddings.item.weight"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, joined: None) -> World:
    """Day 4 was trained in this process; day 5 is prepared."""
    found = World.make(tmp_path_factory.mktemp("processes"))
    found.arrive(1, 2, 3, 4, 5)
    for step in ("arrive", "prepare", "train"):
        found.run(4, step=step)
    for step in ("arrive", "prepare"):
        found.run(5, step=step)
    return found


def test_a_warm_day_in_two_processes_goes_on_from_one_that_had_one(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"one of the 2 training processes failed, see above"):
        world.run(5, TWO, "retriever.fit.batch_size=3", step="train")
    assert "retriever.fit.batch_size 3 is over all 2 processes: raise it to 4" in capfd.readouterr().err

    state = world.run(5, TWO, step="train")
    assert (state.mode, state.start) == ("warm", "2026-01-04")
    before, after = (world.layout.workspace(day(number)) for number in (4, 5))
    trained = read_manifest(after.checkpoint("retriever"), "checkpoint", verify=True)
    assert state.detail("train")["retriever"]["steps"] == trained["steps"] > 0
    assert trained["identity"]["start"] == read_manifest(before.checkpoint("retriever"), "checkpoint")["fingerprint"]
    assert _ndcg(after) > 0.5 * _ndcg(before)
    old, new = (load_file(each.checkpoint("retriever") / MODEL_FILE)[TABLE] for each in (before, after))
    assert new.shape[0] >= old.shape[0], "the whole table, and not a process's half of it"
    assert (new[: len(old)] != old).any()
    assert capfd.readouterr().out == "", "the standard output is for the day's result"

    assert after.run_id not in (None, before.run_id)
    run = track.get_run(after.run_id, uri=world.uri)
    assert run.metrics["cost/parameters"] > 0
    assert world.run(5, TWO, step="train").steps["train"] == state.steps["train"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_run_that_began_it(tmp_path: Path, how: signal.Signals) -> None:
    """The run's lock is free when it is gone, so that another one may train in the same place."""
    world = World.make(tmp_path, days=4)
    world.arrive(1, 2, 3, 4)
    for step in ("arrive", "prepare"):
        world.run(4, step=step)
    where = ["--config", world.config_file, "--data", world.raw, "--workspace", world.layout.root, "--store", world.uri]
    options = ["--day", str(day(4)), "--step", "train", "--set", TWO, "--set", "retriever.fit.epochs=2000"]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "daily", *map(str, where), *options], stdout=log, stderr=log,
            env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    try:
        assert _soon(lambda: (world.layout.folder(day(4)) / "retriever.resume").exists()), (tmp_path / "log").read_text()
        assert len(_processes(tmp_path / "recsys-train-")) == 3, "torchrun and two of its own"
    finally:
        run.send_signal(how)
        run.wait()
    try:
        assert _soon(lambda: not _processes(tmp_path / "recsys-train-"), within_s=30)
    finally:
        for process in _processes(tmp_path / "recsys-train-"):
            os.kill(process, signal.SIGKILL)


def _processes(named: Path) -> list[int]:
    """Those whose command line has this path."""
    found = subprocess.run(["pgrep", "-f", str(named)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def _soon(look: Callable[[], bool], within_s: float = 240) -> bool:
    deadline = time.monotonic() + within_s
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _ndcg(workspace: Workspace) -> float:
    history = json.loads((workspace.checkpoint("retriever") / HISTORY_FILE).read_text())
    return max(entry["valid/NDCG@10"] for entry in history if "valid/NDCG@10" in entry)
