"""One seed of one entry: prepared, trained and judged by the commands, once."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.quality.entries import Entry
from pipelines.evaluate import flat_metrics
from pipelines.per_user import FOLDER, served
from recsys.artefact import code_version, fingerprint
from recsys.errors import InputError

DONE_FILE = "quality.json"  # of the workspace, written last
PATIENCE = 4  # times the minutes of the entry


@dataclass(frozen=True)
class Trained:
    """`metrics` by their MLflow names; `kept` where an earlier call had trained it, with the code `commit`."""

    seed: int
    metrics: dict[str, float]
    minutes: float
    commit: str
    kept: bool
    workspace: Path

    @property
    def per_user(self) -> pl.DataFrame:
        return served(self.workspace / FOLDER)


def raw_folder(entry: Entry, data: Path, work: Path) -> Path:
    """Where the entry's raw logs lie. Raises InputError where they do not."""
    source = data.absolute() / entry.data
    if not source.is_dir():
        raise InputError(f"--data {data} has no folder {entry.data}: name the folder of the data sets, or leave the entry out")
    match entry.writes:
        case None:
            return source
        case "coat":
            from benchmarks import coat

            folder = work.absolute() / "raw-coat"
            if not (folder / "log").is_dir():
                coat.write(source, folder)
            return folder


def run_seed(entry: Entry, raw: Path, workspace: Path, seed: int) -> Trained:
    """Raises InputError where a command fails."""
    workspace = workspace.absolute()
    done = workspace / DONE_FILE
    wanted = fingerprint(entry.load(seed).model_dump(mode="json"))
    if done.is_file() and (facts := json.loads(done.read_text()))["config"] == wanted:
        return Trained(seed, facts["metrics"], facts["minutes"], facts["commit"], True, workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    store = ["--store", f"sqlite:///{workspace / 'mlflow.db'}"]
    for step, words in entry.commands(raw, workspace, seed).items():
        more = [] if step == "prepare" else store
        printed = _recsys([*words, *more, *(["--json"] if step == "evaluate" else [])], workspace, entry.minutes)
    minutes = (time.monotonic() - began_s) / 60
    facts = {"config": wanted, "metrics": flat_metrics(json.loads(printed)), "minutes": minutes, "commit": code_version()}
    done.write_text(json.dumps(facts) + "\n")
    return Trained(seed, facts["metrics"], minutes, facts["commit"], False, workspace)


def _recsys(words: list[str], cwd: Path, minutes: float) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *words], cwd=cwd, capture_output=True, text=True,
            timeout=60 * PATIENCE * minutes + 120, env=_environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(f"recsys {' '.join(words)} took over {PATIENCE} times the {minutes:g} minutes of its entry") from error
    if done.returncode != 0:
        raise InputError(f"recsys {' '.join(words)} failed: {done.stderr[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """With this checkout first: the command runs in another folder, where an installed one would be found."""
    paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
