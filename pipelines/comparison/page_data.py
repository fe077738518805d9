"""The content of the comparison's page as JSON, which its scripts draw."""

import json
import math
from collections import Counter
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from markupsafe import Markup

from pipelines.comparison.changes import in_words
from pipelines.comparison.comparison import Cell, Comparison
from pipelines.comparison.details import Details, leaders
from recsys.track import RunSummary

SELECTED = 8  # runs of a group that are drawn at first, as many as there are colours
COSTS = {  # what a run costs: metric -> title and unit
    "cost/train_s": ("training", "s"),
    "cost/peak_memory_gib": ("peak memory", "GiB"),
    "cost/parameters": ("parameters", ""),
    "export/latency_p50_ms": ("latency, median", "ms"),
    "export/latency_p99_ms": ("latency, p99", "ms"),
    "export/bundle_mib": ("bundle", "MiB"),
    "duration_s": ("whole run", "s"),  # all its stages; known of every run that is no longer at its first
}
BIN = ("mean", "rate", "rows")  # what is drawn of a reliability bin


def payload(comparison: Comparison, details: Details, store: str) -> dict[str, Any]:
    """Everything that the page shows, numbers to six digits; runs and groups are named by their place."""
    return {
        "experiment": comparison.experiment,
        "main": comparison.main_metric,
        "selected": SELECTED,
        "runs": _runs(comparison, store),
        "groups": [
            {"letter": letter(number), "protocol": group.protocol, "data": group.data, "reference": group.reference}
            for number, group in enumerate(comparison.groups)
        ],
        "absent": _absent(comparison, details),
        "unread": sorted(details.unread),
        "costs": {
            name: f"{title} ({unit})" if unit else title
            for name, (title, unit) in COSTS.items()
            if any(name in costs(run) for run in comparison.runs)
        },
        "rows": [
            {"metric": row.metric, "direction": row.direction, "cells": [_cell(cell) for cell in row.cells]}
            for row in comparison.rows
        ],
        "curves": details.curves,
        "slices": details.slices,
        "reliability": {
            task: {place: [[_short(each.get(key)) for key in BIN] for each in bins] for place, bins in runs.items()}
            for task, runs in details.reliability.items()
        },
        "gains": {
            name: {
                "limit": gains.limit,
                "runs": {place: [gain.wins, gain.ties, gain.losses, gain.count_B] for place, gain in gains.runs.items()},
            }
            for name, gains in details.gains.items()
        },
    }


def _runs(comparison: Comparison, store: str) -> list[dict[str, Any]]:
    """What a run's line in the table says; `rank`: its turn in its group, the reference first, which sets its colour."""
    order = leaders(comparison, len(comparison.runs))
    group_of = {place: number for number, group in enumerate(comparison.groups) for place in group.places}
    assert len(group_of) == len(comparison.runs), "a run without a group would not be shown"
    within = {number: [place for place in order if group_of[place] == number] for number in range(len(comparison.groups))}
    names = Counter(run.name for run in comparison.runs)
    return [
        {
            "label": f"{run.name} ({run.id[:8]})" if names[run.name] > 1 else run.name, "id": run.id,
            "status": run.status, "start": run.start.strftime("%Y-%m-%d %H:%M"), "url": run_url(store, run),
            "changes": in_words(comparison.changes[place]) if any(comparison.changes) else "",
            "group": group_of[place], "rank": within[group_of[place]].index(place), "costs": costs(run),
        }
        for place, run in enumerate(comparison.runs)
    ]  # fmt: skip


def as_script(content: dict[str, Any]) -> Markup:
    """JSON that may stand inside a <script> element: no character that could end it."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def run_url(store: str, run: RunSummary) -> str | None:
    """The run's page where the store is a server, without the password that its address may carry."""
    parts = urlsplit(store)
    if parts.scheme not in ("http", "https"):
        return None
    host = f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""
    return f"{urlunsplit((parts.scheme, host, parts.path.rstrip('/'), '', ''))}/#/runs/{run.id}"


def costs(run: RunSummary) -> dict[str, float]:
    known = {**run.metrics, **({} if run.duration_s is None else {"duration_s": run.duration_s})}
    return {name: known[name] for name in COSTS if name in known and math.isfinite(known[name])}


def letter(number: int) -> str:
    """A, B, ..., Z, 27, 28: what a group is called on the page."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _absent(comparison: Comparison, details: Details) -> list[tuple[list[int], tuple[str, ...]]]:
    """What runs lack, in words, and the places of the runs that lack just that."""
    found: dict[tuple[str, ...], list[int]] = {}
    for place, missing in enumerate(details.missing):
        if notes := tuple(dict.fromkeys((*(comparison.notes[place] if comparison.notes else ()), *missing))):
            found.setdefault(notes, []).append(place)
    return [(places, notes) for notes, places in found.items()]


def _cell(cell: Cell) -> list[Any] | None:
    """[value, low, high, best, below the floor, difference]; None where nothing was measured."""
    if _short(cell.value) is None:
        return None
    change = cell.difference
    difference = change and [
        *(_short(each) for each in (change.mean, change.low, change.high, change.p_holm)),
        change.wins, change.losses, change.users, change.shown,
    ]  # fmt: skip
    return [*map(_short, (cell.value, cell.low, cell.high)), cell.best, cell.below_floor, difference]


def _short(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
