"""One trial of a sweep: a stage trained with one point's settings, judged by validation alone, stopped early when told to."""

import math
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import torch

from pipelines.ablation.run import TRAINERS
from pipelines.parents import IDS, Borrower, begins_from
from pipelines.progress import TrainingProgress
from pipelines.semantic_ids import build_ids
from recsys import track
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.job import Progress

State = Literal["complete", "pruned", "failed"]
ERROR_FILE = "error.txt"


@dataclass(frozen=True)
class Task:
    """What a worker needs to know. `number` is the trial's, the same when it is tried again; `lenders` has the artefacts that
    all trials begin from."""

    number: int
    stage: str
    config: RunConfig
    folder: Path
    lenders: Mapping[str, Path] = field(default_factory=dict)
    run_id: str | None = None
    uri: str | None = None


@dataclass(frozen=True)
class Outcome:
    state: State
    value: float | None = None
    epochs: int | None = None
    seconds: float | None = None  # of this process, validation included
    reason: str | None = None


class Judge(Protocol):
    """Whom a trial reports to."""

    def stops(self, epoch: int, value: float) -> bool:
        """Whether the trial is to be given up after this validation."""
        ...

    def heartbeat(self) -> None:
        """Called at every step; raises KeyboardInterrupt where nobody waits for the trial any more."""
        ...


class _PrunedError(Exception):
    def __init__(self, epoch: int, value: float):
        self.epoch, self.value = epoch, value


def main_metric(config: RunConfig, stage: str) -> str:
    """The validation metric that chooses the best epoch of a stage, and the best trial."""
    if stage == "ranker":
        return "valid/AUC/mean" if len(config.regression) < len(config.tasks) else "valid/error/mean"
    if stage == "policy" and config.policy is not None and config.policy.judged_by == "reward":
        return "valid/reward"
    return f"valid/NDCG@{config.evaluation.ks[0]}"


def train_trial(task: Task, data: Dataset, device: torch.device, judge: Judge) -> Outcome:
    """Train and say what came of it. Whatever goes wrong with the settings is an outcome, too."""
    began = time.monotonic()
    try:
        with _tracked(task) as run:
            outcome = replace(_train(task, data, device, judge, run), seconds=time.monotonic() - began)
            if run is not None:
                _log(run, task, outcome)
            return outcome
    except InputError as error:
        return Outcome("failed", reason=str(error))
    except Exception as error:  # some settings fail in the midst of torch; the other trials can go on
        task.folder.mkdir(parents=True, exist_ok=True)
        (task.folder / ERROR_FILE).write_text(traceback.format_exc())
        first = (str(error).strip() or "no message").splitlines()[0]
        return Outcome("failed", reason=f"{type(error).__name__}: {first} (more in {task.folder / ERROR_FILE})")


def _train(task: Task, data: Dataset, device: torch.device, judge: Judge, run: track.Run | None) -> Outcome:
    config, workspace = task.config, Borrower(task.folder, task.lenders)
    metric = main_metric(config, task.stage)
    with TrainingProgress(None, run) as shown:
        for part in begins_from(config, task.stage):
            if part not in task.lenders:
                _make(part, config, data, workspace, device, shown)
        more = {"workspace": workspace} if begins_from(config, task.stage) else {}
        watch = _Watch(shown, task.stage, metric, judge)
        try:
            manifest = TRAINERS[task.stage](
                config, data, workspace.checkpoint(task.stage), device=device, progress=watch, **more
            )  # fmt: skip
        except _PrunedError as stop:
            reason = f"{metric} {stop.value:.4f} after epoch {stop.epoch} is too low beside the other trials"
            return Outcome("pruned", stop.value, stop.epoch, reason=reason)
    assert manifest["main_metric"] == metric, f"{manifest['main_metric']} chose the epoch, {metric} the trial"
    if manifest["best"] is None or not math.isfinite(manifest["best"]):
        raise InputError(f"the validation gives no {metric} to choose a trial by")
    return Outcome("complete", float(manifest["best"]), manifest["epochs"])


def _make(
    part: str, config: RunConfig, data: Dataset, workspace: Borrower, device: torch.device, shown: Progress
) -> None:  # fmt: skip
    """What the stage begins from, where the trial's settings change it."""
    if part == IDS:
        build_ids(config, data, workspace, anew=True)
        return
    more = {"workspace": workspace} if begins_from(config, part) else {}
    TRAINERS[part](config, data, workspace.checkpoint(part), device=device, progress=shown, **more)


@contextmanager
def _tracked(task: Task) -> Iterator[track.Run | None]:
    """The trial's run, which ends as FAILED with the reason where training raises."""
    if task.run_id is None:
        yield None
        return
    with track.resume_run(task.run_id, uri=task.uri) as run:
        try:
            yield run
        except Exception as error:
            run.tag("state", "failed")
            run.tag("reason", f"{type(error).__name__}: {error}"[:1000])
            raise


def _log(run: track.Run, task: Task, outcome: Outcome) -> None:
    run.tag("state", outcome.state)
    if outcome.reason is not None:
        run.tag("reason", outcome.reason)
    if outcome.value is not None:
        run.metric("best/" + main_metric(task.config, task.stage), outcome.value)
    if outcome.epochs is not None:
        run.metric("epochs", outcome.epochs)


class _Watch:
    """Passes the loop's reports on, and ends training where the judge has seen enough."""

    def __init__(self, shown: Progress, stage: str, metric: str, judge: Judge):
        self.shown, self.stage, self.metric, self.judge = shown, stage, metric, judge

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        self.judge.heartbeat()
        self.shown.step(job, step=step, total_steps=total_steps, predictions=predictions, metrics=metrics)

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        self.shown.validated(job, step=step, epoch=epoch, metrics=metrics, best=best)
        value = metrics.get(self.metric)
        if job == self.stage and epoch and value is not None and self.judge.stops(epoch, value):
            raise _PrunedError(epoch, value)
