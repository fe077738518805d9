"""A daily run after its raw files were rewritten: its days know them again, so that none is done again for that alone."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

from pipelines.daily.dataset import fingerprints
from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.monitor.arrival import find_days
from pipelines.monitor.measure import measure
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.errors import InputError

REMADE = "evaluate"  # with the first of these steps begins what a changed model has to go through again


def as_recorded(config: RunConfig, raw: Path, layout: Layout) -> list[str]:
    """The days whose raw files are those that they were made from. Others changed before, and are to be done again."""
    return [
        day.isoformat() for day in layout.days() if (marks := _marks(config, raw, day)) and marks == _state(layout, day).raw
    ]


def recognised(config: RunConfig, raw: Path, layout: Layout, days: list[str]) -> list[str]:
    """Write the rewritten files' fingerprints, and what the arrival check keeps of them, into day.json; the days changed."""
    changed = []
    for day in [each for each in layout.days() if each.isoformat() in days]:
        state, marks = _state(layout, day), _marks(config, raw, day)
        if marks == state.raw:
            continue
        state.raw = marks
        if state.is_done("arrive"):
            state.steps["arrive"].detail = {**_arrived(config, raw, day), "before": {}}
        state.save(layout.state(day))
        changed.append(day.isoformat())
    return changed


def judged_anew(layout: Layout, day: date, workspace: Workspace) -> None:
    """The day whose model was changed says how its dataset was built, and is to be evaluated, exported and promoted again."""
    state, manifest = _state(layout, day), read_manifest(workspace.dataset, "dataset")
    if state.is_done("prepare"):
        built = {"built": manifest["report"]["built"], "data_fingerprint": manifest["data_fingerprint"], "before": None}
        state.steps["prepare"].detail |= built
    if state.is_done(REMADE):
        state.forget_from(REMADE)
        state.status, state.error, state.decision = "running", None, None
    state.save(layout.state(day))


def prepared_anew(layout: Layout, day: date | None) -> list[str]:
    """Other days whose dataset was made, with the users, and not trained on yet: they lose it, and prepare another one."""
    found = []
    for each in layout.days():
        state = _state(layout, each)
        if each != day and state.is_done("prepare") and not state.is_done("train") and not state.pruned:
            for folder in [path for path in layout.folder(each).iterdir() if path.is_dir()]:
                shutil.rmtree(folder)
            state.forget_from("prepare")
            state.save(layout.state(each))
            found.append(each.isoformat())
    return found


def _arrived(config: RunConfig, raw: Path, day: date) -> dict[str, Any]:
    partitions = find_days(config, raw, day)
    like = next((partitions[each][0] for each in sorted(partitions, reverse=True) if each < day), None)
    return measure(config.data, config.daily, raw, partitions[day], like, day).to_json()


def _state(layout: Layout, day: date) -> DayState:
    return DayState.load(layout.state(day))


def _marks(config: RunConfig, raw: Path, day: date) -> dict[str, str]:
    try:
        return fingerprints(config, raw, day)
    except InputError:  # a log whose names have no dates, or that is gone
        return {}
