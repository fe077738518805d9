"""What stands behind the figures of a comparison: curves, slices, reliability, users won and lost; and what a run lacks of it.

Bounded, so that hundreds of runs are read in seconds: a curve has at most POINTS points, and curves of the loss, the long
ones, are read for LOSS_RUNS runs, the best of each group.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.comparison.comparison import Comparison
from pipelines.comparison.gains import Gains, has_users, user_gains
from pipelines.per_user import FOLDER, METRICS_FILE
from recsys.track import RunSummary, artefacts, metric_histories
from recsys.track import stages as stages_of

POINTS = 200
LOSS_RUNS = 20
CURVES_PER_JOB = ("NDCG", "AUC/mean", "AUC", "LogLoss")  # validation metrics, the first that there is
ABSENT = {
    "curves": "no learning curves",
    "slices": "no slices",
    "reliability": "no reliability bins",
    "users": "no per-user values, so no intervals and no users won or lost",
    "cost": "no training cost (cost/...)",
    "latency": "no latency of the exported bundle",
}

Curve = tuple[list[int], list[float]]  # steps and values


@dataclass(frozen=True)
class Details:
    """By the place of a run in the comparison; a run that is absent under a name has not stored it."""

    curves: dict[str, dict[int, Curve]]  # metric -> run
    slices: dict[str, dict[str, dict[int, float]]]  # metric -> slice -> run
    reliability: dict[str, dict[int, list[dict[str, float]]]]  # task -> run -> bins
    gains: dict[str, Gains]  # metric -> users won and lost against the group's reference
    missing: tuple[tuple[str, ...], ...]  # of each run, in words
    unread: frozenset[int]  # runs whose loss was left, as there are more than LOSS_RUNS


def details(comparison: Comparison, uri: str | None = None) -> Details:
    """Read what the runs of a comparison have left in the store at `uri`."""
    ids = [run.id for run in comparison.runs]
    folders = artefacts(comparison.runs, FOLDER, uri=uri)
    stages = stages_of(comparison.runs, comparison.experiment, uri=uri)
    results = [_result(folders.get(each)) for each in ids]
    curves, unread = _curves(comparison, stages, uri)
    slices = _slices(comparison.runs)
    reliability = _reliability(results)
    gains = user_gains(comparison, {place: folders[each] for place, each in enumerate(ids) if each in folders})
    missing = _missing(comparison, curves, slices, reliability, folders, unread)
    return Details(curves, slices, reliability, gains, missing, frozenset(unread))


def _result(folder: Path | None) -> dict[str, Any]:
    """metrics.json; empty where it is absent or no JSON."""
    try:
        found = json.loads((folder / METRICS_FILE).read_text("utf-8")) if folder else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _curves(
    comparison: Comparison, stages: Mapping[str, Sequence[RunSummary]], uri: str | None
) -> tuple[dict[str, dict[int, Curve]], set[int]]:
    """Validation and loss by step, from a run or its stages, and the runs whose loss was not read."""
    leading = set(leaders(comparison, LOSS_RUNS))
    wanted: dict[str, dict[str, int]] = {}  # metric -> id of the run that has it -> place
    unread = set()
    for place, run in enumerate(comparison.runs):
        for owner in (run, *stages.get(run.id, ())):
            for name in curve_names(owner.metrics, comparison.main_metric):
                if "/valid/" in name or place in leading:
                    wanted.setdefault(name, {})[owner.id] = place
                else:
                    unread.add(place)
    read = {name: metric_histories(list(owners), name, uri=uri) for name, owners in sorted(wanted.items())}
    return {
        name: {wanted[name][owner]: _thin(points) for owner, points in found.items()} for name, found in read.items() if found
    }, unread


def curve_names(metrics: Mapping[str, float], main_metric: str) -> list[str]:
    """The loss of each job (`retriever/loss`) and one validation metric of it: the main one, or the first of CURVES_PER_JOB."""
    losses = [name for name in metrics if name.count("/") == 1 and name.endswith("/loss")]
    valid: dict[str, list[str]] = {}
    for name in sorted(metrics):
        job, found, bare = name.partition("/valid/")
        if found:
            valid.setdefault(job, []).append(bare)
    order = (main_metric.removeprefix("test/"), *CURVES_PER_JOB)
    chosen = [f"{job}/valid/{min(bare, key=lambda each: _rank(each, order))}" for job, bare in valid.items()]
    return losses + chosen


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return next((place for place, start in enumerate(order) if name.startswith(start)), len(order)), name


def best_first(comparison: Comparison, places: Sequence[int]) -> list[int]:
    """These runs by the main metric; those that have not measured it come last."""
    row = comparison.row(comparison.main_metric)
    sign = (row.direction or 1) if row else 1
    value = {place: row.cells[place].value if row else None for place in places}
    known = {place: each for place, each in value.items() if each is not None and np.isfinite(each)}
    return [*sorted(known, key=lambda place: -sign * known[place]), *(place for place in places if place not in known)]


def leaders(comparison: Comparison, count: int) -> list[int]:
    """The reference and the best runs by the main metric, in turn from each group; up to `count` in all."""
    queues = []
    for group in comparison.groups:
        first = [] if group.reference is None else [group.reference]
        queues.append([*first, *(place for place in best_first(comparison, group.places) if place != group.reference)])
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:count]


def _thin(points: Sequence[tuple[int, float]]) -> Curve:
    """At most POINTS points, evenly over the steps, with the first and the last; values that are not finite are left out."""
    finite = [point for point in points if np.isfinite(point[1])]
    kept = sorted(set(np.linspace(0, len(finite) - 1, min(len(finite), POINTS)).round().astype(int).tolist()))
    return [finite[place][0] for place in kept], [float(f"{finite[place][1]:.6g}") for place in kept]


def _slices(runs: Sequence[RunSummary]) -> dict[str, dict[str, dict[int, float]]]:
    found: dict[str, dict[str, dict[int, float]]] = {}
    for place, run in enumerate(runs):
        for name, value in run.metrics.items():
            parts = name.split("/", 2)
            if len(parts) == 3 and parts[0] == "slice" and np.isfinite(value):
                found.setdefault(parts[2], {}).setdefault(parts[1], {})[place] = float(f"{value:.6g}")
    return dict(sorted(found.items()))


def _reliability(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, list[dict[str, float]]]]:
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    for place, result in enumerate(results):
        for task, metrics in (result.get("ranking") or {}).get("tasks", {}).items():
            if bins := [each for each in metrics.get("reliability") or () if each.get("rows")]:
                found.setdefault(task, {})[place] = bins
    return found


def _missing(
    comparison: Comparison, curves: dict[str, Any], slices: dict[str, Any], reliability: dict[str, Any],
    folders: Mapping[str, Path], unread: set[int],
) -> tuple[tuple[str, ...], ...]:  # fmt: skip
    has = {
        "curves": {place for found in curves.values() for place in found} | unread,
        "slices": {place for kinds in slices.values() for found in kinds.values() for place in found},
        "reliability": {place for found in reliability.values() for place in found},
    }
    said = []
    for place, run in enumerate(comparison.runs):
        stored = {kind for kind, places in has.items() if place in places}
        stored |= {"users"} if has_users(folders.get(run.id)) else set()
        stored |= {"cost"} if any(name.startswith("cost/") for name in run.metrics) else set()
        stored |= {"latency"} if any(name.startswith("export/latency") for name in run.metrics) else set()
        lacks = [text for kind, text in ABSENT.items() if kind not in stored]
        bound = [f"loss curve not read, as of all but {LOSS_RUNS} runs: compare fewer to see it"] if place in unread else []
        said.append((*lacks, *bound))
    return tuple(said)
