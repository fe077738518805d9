"""The numbers of the data-quality report: what a dataset holds, what was left out of it and why.

Files are read slice by slice, so memory is that of the user and item tables and one slice.
Shapes: U = rows of the user table, I = rows of the item table, S = splits.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.artefact import read_manifest
from recsys.columns import (
    CONTEXT_PREFIX,
    FIRST_ID,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    LABEL_PREFIX,
    LENGTH,
    SPLIT,
    SPLIT_NAMES,
    TIME_MS,
    TRAIN_COUNT,
    TRAIN_LENGTH,
    UNKNOWN_ID,
    USER,
    USERS_FILE,
    VALID_LENGTH,
)
from recsys.data.rules import YEAR_2100_MS
from recsys.data.slices import Slice, example_slices, segment_files, timeline_slices
from recsys.dataset import map_file, numbers

HOUR_MS = 3_600_000
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
NUM_TOP_ITEMS = 10
FEATURE_PREFIX = "feature_"
ASOF_PREFIX = "asof_"
DROPPED_PREFIX = "rows_dropped_by_"


def quality(dataset: Path, manifest: dict[str, Any] | None = None) -> dict[str, Any]:
    """The report of a dataset's folder, ready for JSON. Without `manifest` the folder's own is read; raises InputError."""
    manifest = manifest or read_manifest(dataset, "dataset")
    users, items = map_file(dataset / USERS_FILE), map_file(dataset / ITEMS_FILE)
    length_U = numbers(users, LENGTH)[FIRST_ID:]
    walk = _Walk(np.zeros((len(SPLIT_NAMES), len(items)), np.int64))
    for part in timeline_slices(dataset, manifest):
        walk.add(part, has_time=manifest["has_time"])
    count_SI = walk.count_SI
    events = int(length_U.sum())
    tasks, example_features = _examples(dataset, manifest)
    return {
        "rows": _rows(manifest["report"]),
        "users": len(length_U),
        "items": len(items) - FIRST_ID,
        "events": events,
        "users_without_events": int((length_U == 0).sum()),
        "items_without_events": int((count_SI.sum(axis=0)[FIRST_ID:] == 0).sum()),
        "events_per_user": _distribution(length_U),
        "events_per_item": _distribution(count_SI.sum(axis=0)),
        "time": _time(walk) if manifest["has_time"] and events else None,
        "share_with_tied_time": walk.tied / max(1, events),
        "share_of_repeated_pairs": walk.repeated / max(1, events),
        "splits": _splits(users, items, count_SI),
        "tasks": tasks,
        "top_items": _top_items(items, count_SI.sum(axis=0)),
        "features": [*_table_features("user", users), *_table_features("item", items), *example_features],
    }


def _rows(report: dict[str, Any]) -> dict[str, Any]:
    """How many rows came in, and where those went that are not in the dataset."""
    read = report["rows_read"]
    dropped = {name.removeprefix(DROPPED_PREFIX): n for name, n in report.items() if name.startswith(DROPPED_PREFIX)}
    return {
        "read": read,
        "quarantined": report["rows_quarantined"],
        "quarantined_by_rule": dict(report["quarantined_by_rule"]),
        "dropped": {name: {"rows": n, "share": n / max(1, read)} for name, n in dropped.items()},
        "kept": report["rows_kept"],
    }


@dataclass
class _Walk:
    """What needs every event of the timeline."""

    count_SI: np.ndarray
    hours: np.ndarray = field(default_factory=lambda: np.zeros(YEAR_2100_MS // HOUR_MS + 1, np.int64))  # since 1970
    first_ms: int = YEAR_2100_MS
    last_ms: int = 0
    tied: int = 0
    repeated: int = 0

    def add(self, part: Slice, *, has_time: bool) -> None:
        user, item, time_ms = part[USER], part[ITEM], part[TIME_MS]
        num_items = self.count_SI.shape[1]
        place = part[SPLIT] * np.int64(num_items) + item
        self.count_SI += np.bincount(place, minlength=self.count_SI.size).reshape(self.count_SI.shape)
        as_before = np.append(False, (user[1:] == user[:-1]) & (time_ms[1:] == time_ms[:-1]))
        self.tied += int((as_before | np.append(as_before[1:], False)).sum())
        pairs = np.sort((user - user[0]).astype(np.int64) * num_items + item)
        self.repeated += int((pairs[1:] == pairs[:-1]).sum())
        if has_time:
            low, high = int(time_ms.min()), int(time_ms.max())
            self.first_ms, self.last_ms = min(self.first_ms, low), max(self.last_ms, high)
            found = np.bincount(time_ms // HOUR_MS - low // HOUR_MS)
            self.hours[low // HOUR_MS :][: len(found)] += found


def _distribution(counts: np.ndarray) -> dict[str, Any]:
    """Of those with at least one event. Bin k of the histogram holds counts from 2^k to 2^(k+1) - 1."""
    counts = counts[counts > 0]
    if not len(counts):
        return {"min": 0, "max": 0, "mean": 0.0, "quantiles": {}, "histogram": []}
    return {
        "min": int(counts.min()),
        "max": int(counts.max()),
        "mean": float(counts.mean()),
        "quantiles": {str(share): float(value) for share, value in zip(QUANTILES, np.quantile(counts, QUANTILES), strict=True)},
        "histogram": np.bincount(np.frexp(counts)[1] - 1).tolist(),
    }


def _time(walk: _Walk) -> dict[str, Any]:
    days = np.append(walk.hours, np.zeros(-len(walk.hours) % 24, np.int64)).reshape(-1, 24)
    used = np.flatnonzero(days.sum(axis=1))
    first, last = int(used[0]), int(used[-1])
    per_day = days[first : last + 1].sum(axis=1)
    weekday = (np.arange(first, last + 1) + 3) % 7  # 1970-01-01 was a Thursday
    return {
        "first_ms": walk.first_ms,
        "last_ms": walk.last_ms,
        "first_day": datetime.fromtimestamp(first * 86_400, UTC).date().isoformat(),
        "events_per_day": per_day.tolist(),
        "events_per_hour_of_day": days.sum(axis=0).tolist(),
        "events_per_weekday": np.bincount(weekday, weights=per_day, minlength=7).astype(np.int64).tolist(),
    }


def _splits(users: pa.Table, items: pa.Table, count_SI: np.ndarray) -> dict[str, Any]:
    """Sizes, and how much of each split is about users or items that training has never seen."""
    train_U, valid_U = numbers(users, TRAIN_LENGTH), numbers(users, VALID_LENGTH)
    length_SU = np.stack([train_U, valid_U, numbers(users, LENGTH) - train_U - valid_U])
    cold_U, cold_I = train_U == 0, numbers(items, TRAIN_COUNT) == 0
    result = {}
    for name, length_U, count_I in zip(SPLIT_NAMES, length_SU, count_SI, strict=True):
        events = int(length_U.sum())
        result[name] = {
            "events": events,
            "users": int((length_U > 0).sum()),
            "items": int((count_I > 0).sum()),
            "cold_users": int((cold_U & (length_U > 0)).sum()),
            "cold_items": int((cold_I & (count_I > 0)).sum()),
            "share_of_cold_users": int(length_U[cold_U].sum()) / max(1, events),  # of the events
            "share_of_cold_items": int(count_I[cold_I].sum()) / max(1, events),
        }
    return result


def _examples(dataset: Path, manifest: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Labels by task and split, and the unknown share of the features that examples carry."""
    names = [name for table in segment_files(dataset, manifest, "examples")[:1] for name in table.column_names]
    labels = {name: np.zeros((2, len(SPLIT_NAMES))) for name in names if name.startswith(LABEL_PREFIX)}  # count, sum
    unknown = dict.fromkeys([name for name in names if name.startswith((CONTEXT_PREFIX, ASOF_PREFIX, FEATURE_PREFIX))], 0)
    rows = 0
    for part in example_slices(dataset, manifest, [*labels, *unknown]):
        rows += len(part[SPLIT])
        for name, totals in labels.items():
            known = ~np.isnan(part[name])
            totals += [
                np.bincount(part[SPLIT][known], weights=weights, minlength=len(SPLIT_NAMES))
                for weights in (None, part[name][known])
            ]
        for name in unknown:
            unknown[name] += int((np.isnan(part[name]) if name.startswith(FEATURE_PREFIX) else part[name] == UNKNOWN_ID).sum())
    tasks = {
        name.removeprefix(LABEL_PREFIX): {
            split: {"labelled": int(count), "mean": float(total / count) if count else None}
            for split, count, total in zip(SPLIT_NAMES, *totals, strict=True)
        }
        for name, totals in labels.items()
    }
    return tasks, [
        _fill("context" if name.startswith(CONTEXT_PREFIX) else "example", name, rows, n) for name, n in unknown.items()
    ]


def _table_features(owner: str, table: pa.Table) -> list[dict[str, Any]]:
    found = []
    for name in (name for name in table.column_names if name.startswith(FEATURE_PREFIX)):
        column = table.column(name).combine_chunks()
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        # A list without a known value holds the unknown code alone.
        codes = column.values.to_numpy()[column.offsets.to_numpy()[:-1]] if is_list else column.to_numpy()
        found.append(_fill(owner, name, len(table) - FIRST_ID, int((codes[FIRST_ID:] == UNKNOWN_ID).sum())))
    return found


def _fill(owner: str, column: str, rows: int, unknown: int) -> dict[str, Any]:
    return {"owner": owner, "feature": column.split("_", 1)[1], "rows": rows, "unknown_share": unknown / max(1, rows)}


def _top_items(items: pa.Table, count_I: np.ndarray) -> list[dict[str, Any]]:
    order = np.argsort(-count_I, kind="stable")[:NUM_TOP_ITEMS]
    order = order[count_I[order] > 0]
    top = items.take(order)
    titles = top.column("title").to_pylist() if "title" in top.column_names else [None] * len(top)
    return [
        {"item_id": item_id, "title": title, "events": events}
        for item_id, title, events in zip(top.column(ITEM_ID).to_pylist(), titles, count_I[order].tolist(), strict=True)
    ]
