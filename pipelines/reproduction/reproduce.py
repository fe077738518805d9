"""Data and model anew from what a run stored, and whether the metrics agree."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipelines import stages
from pipelines.per_user import FOLDER
from pipelines.reproduction.agreement import Line, exactly, judged, lines, within_intervals
from pipelines.reproduction.checks import check_data, doubts, stood_there, surroundings
from pipelines.reproduction.stored_run import Stored, read_stored
from pipelines.workspace import Workspace
from recsys import track
from recsys.errors import InputError

MARK = "reproduces.json"  # of a workspace that was begun to reproduce a run
REPRODUCES, REPRODUCED = "reproduces", "reproduced"  # tags: of the new run, of the old one


@dataclass(frozen=True)
class Reproduction:
    """`other` says what is not as it was: code, packages, machine; `notes` what may not be. `missing`: metric -> which of the
    two runs has it alone."""

    run_id: str
    new_run_id: str
    workspace: Workspace
    lines: list[Line]
    rule: str
    other: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def disagreeing(self) -> list[Line]:
        return [line for line in self.lines if line.agrees is False]

    @property
    def judged(self) -> int:
        return sum(line.agrees is not None for line in self.lines)

    @property
    def agrees(self) -> bool:
        return self.judged > 0 and not self.disagreeing

    @property
    def sentence(self) -> str:
        bad = len(self.disagreeing)
        said = f"{self.judged - bad} of {self.judged} judged metrics agree, {self.rule}"
        return (
            said
            if not bad
            else f"{said}; {', '.join(line.metric for line in self.disagreeing[:5])} {'and more ' * (bad > 5)}do not"
        )

    def to_json(self) -> dict[str, Any]:
        rows = [
            {"metric": each.metric, "stored": each.stored, "now": each.now, "difference": each.difference,
             "tolerance": each.tolerance, "agrees": each.agrees}
            for each in self.lines
        ]  # fmt: skip
        return {
            "run": self.run_id, "reproduction": self.new_run_id, "workspace": str(self.workspace.root), "agrees": self.agrees,
            "rule": self.rule, "other": self.other, "notes": self.notes, "missing": self.missing, "metrics": rows,
        }  # fmt: skip


def reproduce(
    run_id: str, *, raw: Path | None = None, root: Path | None = None, tolerance: float | None = None, strict: bool = False,
    console: Console | None = None, uri: str | None = None,
) -> Reproduction:  # fmt: skip
    """Prepare, train and evaluate as the run did, in a workspace of its own. Raises InputError where the run does not keep
    what that takes, or the raw data are no longer those."""
    stored = read_stored(run_id, uri=uri)
    run_id = stored.run.id
    raw = _raw(stored, raw)
    other, notes = [*surroundings(stored), *stood_there(stored)], doubts(stored)
    if strict and (other or notes):
        raise InputError(f"--strict: {'; '.join(other + notes)}: restore what differs, or leave out --strict")
    if console is not None:
        for line in [*other, *notes]:
            console.print(f"[yellow]warning:[/] {escape(line)}", highlight=False, soft_wrap=True)
    workspace = _workspace(run_id, root)
    prepared = stages.prepare(stored.config, raw, workspace, anew=True, console=console)
    other += check_data(stored.origin, stored.data, prepared.manifest, raw)
    stages.train(stored.config, workspace, only=None, console=console, uri=uri)
    stages.evaluate(stored.config, workspace, uri=uri)
    found = _judge(stored, workspace, tolerance, other, notes, uri)
    _note(found, uri)
    return found


def _raw(stored: Stored, given: Path | None) -> Path:
    if given is not None:
        return given
    if stored.origin.raw is None:
        raise InputError(f"run {stored.run.id} does not keep where its raw logs lie: name their folder with --data")
    if not Path(stored.origin.raw).is_dir():
        raise InputError(
            f"the raw logs of run {stored.run.id} lay in {stored.origin.raw}, which is not there: name them with --data"
        )
    return Path(stored.origin.raw)


def _workspace(run_id: str, root: Path | None) -> Workspace:
    """A folder that holds nothing but an earlier attempt at the same run."""
    root = root or Path("runs") / f"reproduce-{run_id}"
    mark = root / MARK
    begun = json.loads(mark.read_text())["run_id"] if mark.is_file() else None
    if begun != run_id and root.exists() and any(root.iterdir()):
        raise InputError(f"--workspace {root} holds something else: name a folder that is new or empty")
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps({"run_id": run_id}) + "\n")
    return Workspace(root)


def _judge(
    stored: Stored, workspace: Workspace, tolerance: float | None, other: list[str], notes: list[str], uri: str | None
) -> Reproduction:  # fmt: skip
    assert workspace.run_id is not None
    new = track.get_run(workspace.run_id, uri=uri)
    was, now = judged(stored.run.metrics), judged(new.metrics)
    allowed: dict[str, float | None]
    if tolerance is not None:
        allowed, rule = dict.fromkeys(was, tolerance), f"within {tolerance:g}"
    elif not other:
        allowed, rule = exactly(was), "exactly, as code, packages, dataset and machine are the same"
    else:
        allowed = within_intervals(was, track.artefact(stored.run.id, FOLDER, uri=uri))
        rule = "within half of the 95 % interval over users, as not everything is as it was"
    allowed = {name: limit if stored.trained(name) else None for name, limit in allowed.items()}
    missing = dict.fromkeys(sorted(was.keys() - now.keys()), "the run")
    missing |= dict.fromkeys(sorted(now.keys() - was.keys()), "the reproduction")
    return Reproduction(stored.run.id, new.id, workspace, lines(was, now, allowed), rule, other, notes, missing)


def _note(found: Reproduction, uri: str | None) -> None:
    """In the new run what it reproduces and how it ended; in the old one only that it was reproduced."""
    track.annotate(found.new_run_id, {REPRODUCES: found.run_id, "agrees": found.sentence}, uri=uri)
    if found.agrees:
        track.annotate(found.run_id, {REPRODUCED: f"{found.new_run_id}: {found.sentence}"}, uri=uri)
