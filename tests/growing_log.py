"""A log in daily folders: new users, items and values, late rows, rows that were there before; with its config."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.data import Data

T0 = 1_700_006_400  # seconds; a midnight
DAY, HOUR = 86_400, 3600
DAYS = 7
DTYPES = {"u": pl.String, "i": pl.String, "t": pl.Int64, "click": pl.Int64, "dwell": pl.Int64, "device": pl.String}
EVENTS = {
    "path": "log", "user": "u", "item": "i", "time": "t", "history": "click = 1", "arrives": "by_folder",
    "labels": {"click": "click", "long": {"kind": "at_least", "value": "dwell", "threshold": 30}},
    "context": {"device": "device"},
}  # fmt: skip
TABLES = {
    "items": {"path": "items.parquet", "id": "i", "features": {"kind": "kind", "tags": "tags"}, "title": "name"},
    "users": {"path": "users.parquet", "id": "u", "features": {"tier": "tier"}, "event_time": "since", "created": "known"},
}
FEATURES = {
    "clicks_3d": {"kind": "count", "by": ["user"], "event": "click", "window": "3d", "delay": "2h"},
    "item_ctr": {"kind": "rate", "by": ["item"], "event": "click", "half_life": "20h", "prior": 0.1, "strength": 5},
    "since_long": {"kind": "recency", "by": ["user"], "event": "long"},
    "in_session": {"kind": "session_position", "gap": "6h"},
    "of_kind": {"kind": "count", "by": ["user", "kind"], "event": "history"},
    "of_device": {"kind": "rate", "by": ["device"], "event": "long", "window": "2d", "prior": 0.5, "strength": 1},
    "of_tier": {"kind": "count", "by": ["tier", "kind"], "event": "all", "half_life": "1d"},
}
FIXED = {"kind": "time", "valid_from": "2023-11-16T06:00:00Z", "test_from": "2023-11-18T00:00:00Z"}  # days 1 and 3


def table_rows() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Every item and its values, those of later items first in the alphabet; users who move up a tier, some late."""
    items = range(30)
    item_rows = {
        "i": [f"i{99 - n}" for n in items], "kind": [chr(ord("z") - n // 4) for n in items],
        "tags": [[chr(ord("t") - n // 6), "x"] if n % 5 else None for n in items], "name": [f"Item {n}" for n in items],
    }  # fmt: skip
    moves = [(n, step) for n in range(30) for step in range(n % 3)]
    user_rows = {
        "u": [f"u{99 - n}" for n, _ in moves], "tier": [f"tier {(n + step) % 4}" for n, step in moves],
        "since": [T0 + (step * 50 + n) * HOUR for n, step in moves],
        "known": [T0 + (step * 60 + n) * HOUR for n, step in moves],
    }  # fmt: skip
    return pl.DataFrame(item_rows), pl.DataFrame(user_rows)


def days(seed: int = 0) -> list[pl.DataFrame]:
    """Every day has more users, items and devices, rows of the days before and rows of the last two days once more."""
    rng = np.random.default_rng(seed)
    found: list[pl.DataFrame] = []
    for day in range(DAYS):
        ago = np.repeat([0, 1, 3], [40, 6 if day else 0, 2 if day > 2 else 0])
        rows = len(ago)
        new = pl.DataFrame({
            "u": [f"u{99 - n}" for n in rng.integers(0, 4 + 3 * day, rows)],
            "i": [f"i{99 - n}" for n in rng.integers(0, 5 + 3 * day, rows)],
            "t": T0 + (day - ago) * DAY + rng.integers(6, 24, rows) * HOUR + rng.integers(0, 3, rows),
            "click": np.zeros(rows, int) if day == 4 else rng.integers(0, 2, rows),
            "dwell": rng.integers(0, 60, rows),
            "device": [f"device {9 - n}" for n in rng.integers(0, 2 + day // 2, rows)],
        })  # fmt: skip
        found.append(pl.concat([new, *[other.sample(4, seed=day) for other in found[-2:]]]))
    return [frame.sample(fraction=1, shuffle=True, seed=day) for day, frame in enumerate(found)]


def write_tables(raw: Path) -> None:
    for name, frame in zip(("items", "users"), table_rows(), strict=True):
        frame.write_parquet(raw / f"{name}.parquet")


def write_day(raw: Path, day: int | str, frame: pl.DataFrame, *, files: int = 1) -> None:
    folder = raw / "log" / f"d={day}"
    folder.mkdir(parents=True)
    for number, rows in enumerate(np.array_split(np.arange(len(frame)), files)):
        frame[rows].write_parquet(folder / f"{number}.parquet")


def config(**parts: Any) -> Data:
    return Data.model_validate({"events": EVENTS, **TABLES, "features": FEATURES, "filters": {"max_bad_share": 0.9}, **parts})
