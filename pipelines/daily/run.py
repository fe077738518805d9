"""One day, step by step. Everything stands in files, so that a killed run goes on where it was."""

import logging
import shutil
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from pipelines.daily.dataset import fingerprints, newest_day
from pipelines.daily.layout import Layout
from pipelines.daily.lock import held
from pipelines.daily.prune import prune
from pipelines.daily.state import STEPS, DayState, StepState, now
from pipelines.daily.steps import ACTIONS, outputs
from pipelines.daily.today import Today
from pipelines.forget.plan import require_finished
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.errors import InputError

READ_RAW = ("arrive", "prepare")
log = logging.getLogger("recsys.daily")


def run_day(
    config: RunConfig, raw: Path, root: Path, day: date | None = None, *, step: str | None = None, full: bool = False,
    endpoint: str | None = None, uri: str | None = None, console: Console | None = None,
) -> DayState:  # fmt: skip
    """Run the steps of a day that are not done yet, or one of them alone, and return its state.

    `day`: default the newest of the log. A finished day stays as it is unless its raw files changed: then it is done again.
    Raises InputError where the day's data, or a later step, stops it: day.json says why, and the champion stays.
    Raises BusyError where another run holds the workspace. No day is run while a run that forgets users is half done.
    """
    if step is not None and step not in STEPS:
        raise InputError(f"--step {step!r} is unknown: choose from {', '.join(STEPS)}")
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder: name the folder of the raw logs with --data")
    day = day or newest_day(config, raw)
    layout = Layout(root)
    with held(layout.lock, f"recsys daily of {day}"):
        require_finished(root)
        today = Today(config, raw, layout, day, _opened(config, raw, layout, day), full, endpoint, uri, console)
        if step is None:
            for each in STEPS:
                _do(today, each)
            prune(config, layout, uri=uri)
        else:
            _require_before(today, step)
            for each in STEPS[: STEPS.index(step)] if step != "report" else ():
                if each != "reload":
                    _do(today, each)  # nothing where what it left is whole
            _do(today, step)
        return today.state


def _opened(config: RunConfig, raw: Path, layout: Layout, day: date) -> DayState:
    """The day's state, begun anew where its raw files are others than they were."""
    path, marks = layout.state(day), _marks(config, raw, day)
    state = None
    if path.is_file():
        try:
            state = DayState.load(path)
        except InputError as error:
            log.warning("%s", error)
    if state is not None and state.raw and state.raw != marks and marks:
        log.warning("%s: its raw files changed, so that it is done again", day)
        path.parent.rename(layout.aside(day))
        state = None
    if state is None:
        state = DayState(day=day.isoformat())
    state.raw = marks or state.raw
    return state


def _marks(config: RunConfig, raw: Path, day: date) -> dict[str, str]:
    """Empty where the files cannot be listed, as while one is being written: the first step says why."""
    try:
        return fingerprints(config, raw, day)
    except InputError:
        return {}


def _require_before(today: Today, step: str) -> None:
    """Raise InputError where steps before it are missing. A report may be of a day that stopped, but not of one unheard of."""
    missing = _missing(today.state, step)
    if missing and (step != "report" or not today.state.steps):
        raise InputError(f"--step {step} of {today.day} comes after {', '.join(missing)}: run these first, or leave --step out")


def _missing(state: DayState, step: str) -> list[str]:
    """Steps before this one that are not done; a reload need not be."""
    return [each for each in STEPS[: STEPS.index(step)] if each != "reload" and not state.is_done(each)]


def _do(today: Today, step: str) -> None:
    """Do the step unless it is done and what it left is whole; write how it went."""
    state = today.state
    if state.is_done(step) and not _damaged(today, step) and not _asked_again(today, step):
        return
    if state.is_done(step):
        _remove(today, step)
    state.forget_from(step)
    if STEPS.index(step) < STEPS.index("train") or (step == "train" and today.full):
        state.mode = None  # it hangs on the dataset, so it is decided again
    if not (step == "report" and _missing(state, step)):  # a day that stopped has stopped, told once more or not
        state.status, state.error = "running", None
    today.save()
    if today.console is not None:
        today.console.rule(f"[bold]{today.day} {step}[/]")
    began, clock = now(), time.monotonic()

    def write(how: Literal["done", "failed"], detail: dict[str, Any]) -> None:
        seconds = round(time.monotonic() - clock, 3)
        state.steps[step] = StepState(state=how, began=began, ended=now(), seconds=seconds, detail=detail)
        today.save()

    try:
        detail = ACTIONS[step](today)
        if step in READ_RAW:
            _require_unchanged(today, step)
    except Exception as error:
        state.status = "stopped" if step == "arrive" and isinstance(error, InputError) else "failed"
        state.error = f"{step}: {error}" if isinstance(error, InputError) else f"{step}: {type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk is what went wrong, and not that this cannot be written either
            write("failed", {})
        if step != "report":
            _tell(today)
        raise
    if step == STEPS[-1] and not _missing(state, step):
        state.status = "done"
    write("done", detail)


def _require_unchanged(today: Today, step: str) -> None:
    """Raise InputError, and keep nothing of the step, where the day's raw files are others than when the run began."""
    marks = _marks(today.config, today.raw, today.day)
    if today.state.raw and marks != today.state.raw:
        _remove(today, step)
        raise InputError(f"the raw files of {today.day} changed while they were read: run the day again")


def _remove(today: Today, step: str) -> None:
    """What a step left, and what a training that read it would go on from."""
    for folder, _ in outputs(today, step):
        shutil.rmtree(folder, ignore_errors=True)
    for later in STEPS[STEPS.index(step) :]:
        for folder, _ in outputs(today, later):
            shutil.rmtree(folder.with_name(f"{folder.name}.resume"), ignore_errors=True)


def _damaged(today: Today, step: str) -> bool:
    """Whether an artefact of a step that is done is not as it was written; those of an old day may be gone."""
    if today.state.pruned:
        return False
    for folder, kind in outputs(today, step):
        try:
            read_manifest(folder, kind, verify=True)
        except InputError as error:
            log.warning("%s: %s is done again: %s", today.day, step, error)
            return True
    return False


def _asked_again(today: Today, step: str) -> bool:
    """A reload without an endpoint is done when one is named, a warm training from scratch when that is asked for, and the
    report of a day that is not done each time.

    Raises InputError where an old day, whose dataset is gone, is to be trained again."""
    if step == "train":
        again = today.full and today.state.mode == "warm"
        if again and today.state.pruned:
            raise InputError(
                f"{today.day} has no dataset any more, since daily.keep_days is {today.config.daily.keep_days}: remove "
                f"{today.workspace.root}, and `recsys daily --day {today.day} --full` does the whole day again"
            )
        return again
    if step == "report":
        return bool(_missing(today.state, step))
    return step == "reload" and today.endpoint is not None and today.state.detail(step).get("endpoint") is None


def _tell(today: Today) -> None:
    """Report a day that stopped. What goes wrong with that is not what the run ends with."""
    try:
        ACTIONS["report"](today)
        today.save()
    except Exception as error:
        log.warning("%s: the report could not be sent: %s", today.day, error)
