"""A small log in days, written in any format, and what goes wrong with one of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.monitor.arrival import check_arrival
from pipelines.monitor.arrived import Arrived
from recsys.config import RunConfig

FIRST = date(2026, 2, 1)
DAY_MS = 86_400_000
EVENTS: dict[str, Any] = {
    "path": "log", "user": "uid", "item": "sku", "time": "ts", "time_unit": "ms", "columns": {"ts": "int", "click": "int"},
    "labels": {"click": "click"}, "context": {"device": "device"}, "arrives": "by_folder",
}  # fmt: skip


def day(number: int) -> date:
    return FIRST + timedelta(number)


def midnight_ms(number: int) -> int:
    return int(datetime.combine(day(number), datetime.min.time(), UTC).timestamp()) * 1000


def people(number: int, rows: int = 600, users: int = 60, seed: int = 0) -> pl.DataFrame:
    """A day of people: sessions of a few pages at gaps with a long tail, some people more than others."""
    rng = np.random.default_rng([seed, number])
    user = (users * rng.random(rows) ** 1.5).astype(int)
    start = rng.integers(0, DAY_MS - 4_000_000, rows)
    time = np.minimum(start + rng.exponential(400_000, rows), DAY_MS - 1).astype(int)
    return pl.DataFrame({
        "uid": [f"u{n}" for n in user], "sku": [f"i{n}" for n in (80 * rng.random(rows) ** 2).astype(int)],
        "ts": np.sort(time) + midnight_ms(number), "click": (rng.random(rows) < 0.3).astype(int),
        "device": rng.choice(["phone", "desktop", "tv"], rows, p=[0.6, 0.3, 0.1]),
    })  # fmt: skip


@dataclass
class Log:
    """Raw partitions below `raw`, and what is known of the days that were accepted."""

    raw: Path
    suffix: str = "parquet"
    events: dict[str, Any] = field(default_factory=lambda: dict(EVENTS))
    daily: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> RunConfig:
        return RunConfig.model_validate({"name": "shop", "data": {"events": self.events}, "daily": self.daily})

    def path(self, number: int) -> Path:
        if self.events["arrives"] == "by_file":
            return self.raw / "log" / f"{day(number)}.{self.suffix}"
        return self.raw / "log" / f"day={day(number)}" / f"part-0.{self.suffix}"

    def write(self, number: int, rows: pl.DataFrame) -> Path:
        path = self.path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        match self.suffix:
            case "parquet":
                rows.write_parquet(path)
            case "csv" | "csv.gz":
                rows.write_csv(path, compression="gzip" if path.suffix == ".gz" else "uncompressed")
            case "ndjson":
                rows.write_ndjson(path)
        return path

    def people(self, *numbers: int) -> None:
        for number in numbers:
            self.write(number, people(number))

    def arrive(self, number: int) -> Arrived:
        """Check the day, and keep what is known of it as the daily run does."""
        found = check_arrival(self.config, self.raw, day(number), self.known)
        self.known[str(day(number))] = found.to_json()
        return found


Fails = Callable[..., str]
