"""What Dagster's page shows of an asset: what the day's files say."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.daily.layout import REPORT_FILE
from pipelines.daily.state import DayState
from pipelines.workspace import Workspace
from recsys.artefact import MANIFEST, fingerprint

GATES, ALARMS = "gates", "alarms"  # checks of the champion
MOVED = ("promoted", "already")  # outcomes of a promotion after which the candidate is the champion


def describe(root: Path, name: str, steps: Sequence[str], day: str) -> "dg.MaterializeResult[Any]":
    """Numbers of the steps, where the files lie, the version of the data, and of the champion its checks and the report."""
    folder = root / "days" / day
    state = DayState.load(folder / "day.json")
    shown: dict[str, Any] = {"folder": dg.MetadataValue.path(str(folder))}
    for step in steps:
        shown |= {f"{step}/seconds": state.steps[step].seconds, **flat(state.detail(step), step)}
    if name == "checkpoint":
        shown |= flat({"mode": state.mode, "why": state.why, "from day": state.start})
    if name == "champion" and (folder / REPORT_FILE).is_file():
        shown["report"] = dg.MetadataValue.md((folder / REPORT_FILE).read_text())
    version = _version(name, Workspace(folder), state)
    return dg.MaterializeResult(
        metadata=shown, data_version=dg.DataVersion(version) if version else None,
        check_results=_checks(state) if name == "champion" else None,
    )  # fmt: skip


def flat(detail: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested numbers and words on one level, by a/b; None is left out, a list becomes JSON."""
    found: dict[str, Any] = {}
    for key, value in detail.items():
        name = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping):
            found |= flat(value, name)
        elif isinstance(value, list):
            found[name] = dg.MetadataValue.json(value)
        elif value is not None:
            found[name] = value if isinstance(value, (bool, int, float)) else str(value)
    return found


def _version(name: str, workspace: Workspace, state: DayState) -> str | None:
    """By which Dagster tells whether what was made from an asset is out of date: fingerprints, the champion's number."""
    if name == "champion":
        return str(state.champion["after"])
    folders = {part: workspace.checkpoint(part) for part in ("retriever", "generator", "policy", "ranker")}
    found = state.raw if name == "raw" else {}
    for part, folder in (folders if name == "checkpoint" else {name: workspace.root / name}).items():
        if (folder / MANIFEST).is_file():
            found[part] = json.loads((folder / MANIFEST).read_text())["fingerprint"]
    return fingerprint(found) if len(found) > 1 else next(iter(found.values()), None)


def _checks(state: DayState) -> list[dg.AssetCheckResult]:
    """Whether the candidate became the champion, and whether an alarm stands. Neither stops a day."""
    decision = {key: value for key, value in (state.decision or {}).items() if key != "gates"}
    sentences = [str(alarm["sentence"]) for alarm in state.alarms]
    return [
        dg.AssetCheckResult(
            check_name=GATES, passed=decision.get("outcome") in MOVED, severity=dg.AssetCheckSeverity.WARN,
            description=str(decision.get("says", "")) or None, metadata=flat(decision),
        ),
        dg.AssetCheckResult(
            check_name=ALARMS, passed=not state.alarms, severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(sentences) or None, metadata={"alarms": dg.MetadataValue.json(state.alarms)},
        ),
    ]  # fmt: skip
