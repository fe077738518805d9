"""The numbers of a build for its manifest: what was read, set aside and kept."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from recsys.columns import (
    ITEM,
    SPLIT_NAMES,
    USER,
)  # fmt: skip
from recsys.data import Data
from recsys.data.before import Before
from recsys.data.clean import by_reason
from recsys.data.work import Work, all_bad


def account(data: Data, work: Work, before: Before, count_US: np.ndarray) -> dict[str, Any]:
    """What was read, set aside and kept, of all that the dataset holds."""
    old: dict[str, Any] = before.manifest.get("report", {})
    broken = all_bad(work.ingested, work.settled)
    by_rule = Counter[str](old.get("quarantined_by_rule", {}))
    for (rule, _), count in broken.items():
        by_rule[rule] += count
    reasons = Counter({("", reason): count for reason, count in old.get("quarantined_by_reason", {}).items()})
    counts = {
        "rows_read": sum(found.rows_read for found in work.ingested),
        "rows_quarantined": broken.total(),
        "rows_dropped_by_steps": sum(found.rows_dropped_by_steps for found in work.settled),
        "rows_dropped_by_min_counts": work.rows_dropped,
        "rows_kept": sum(part.rows for part in work.shaped),
        "late_rows": sum(found.late_rows for found in work.settled),
        "conflicting_rows": sum(found.conflicting_rows for found in work.settled),
        "timeline_events": sum(part.events for part in work.shaped),
        "events_with_tied_time": sum(part.tied_events for part in work.shaped),
        "events_of_repeated_pairs": sum(part.repeated_pairs for part in work.shaped),
        "examples": sum(part.examples for part in work.shaped),
    }
    counts = {name: old.get(name, 0) + count for name, count in counts.items()}
    first_ms, last_ms = (min, [part.first_ms for part in work.shaped]), (max, [part.last_ms for part in work.shaped])
    has_time = data.events.has_time
    return {
        **counts,
        "quarantined_by_rule": dict(by_rule.most_common()),
        "quarantined_by_reason": by_reason(broken + reasons),
        "time_unit": data.events.time_unit,
        "users": len(work.values[USER]),
        "items": len(work.values[ITEM]),
        "timeline_by_split": dict(zip(SPLIT_NAMES, count_US.sum(axis=0).tolist(), strict=True)),
        "share_with_tied_time": round(counts["events_with_tied_time"] / max(1, counts["timeline_events"]), 4),
        "share_of_repeated_pairs": round(counts["events_of_repeated_pairs"] / max(1, counts["timeline_events"]), 4),
        "first_time_ms": _over(*first_ms, old.get("first_time_ms")) if has_time else None,
        "last_time_ms": _over(*last_ms, old.get("last_time_ms")) if has_time else None,
        "tasks": {task: _task(task, work, old) for task in data.events.labels},
    }


def _over(choose: Callable[[list[int]], int], found: list[int | None], old: int | None) -> int | None:
    known = [value for value in [*found, old] if value is not None]
    return choose(known) if known else None


def _task(task: str, work: Work, old: dict[str, Any]) -> dict[str, Any]:
    """How many labels there are and their mean."""
    before = old.get("tasks", {}).get(task, {"labelled": 0, "mean": None})
    ones = round(before["labelled"] * (before["mean"] or 0.0))  # labels that can be appended are 0 or 1
    parts = [(before["labelled"], ones), *[part.tasks[task] for part in work.shaped]]
    labelled, total = (sum(column) for column in zip(*parts, strict=True))
    return {"labelled": labelled, "mean": total / labelled if labelled else None}
