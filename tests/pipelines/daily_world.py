"""A small log that arrives day by day, a config that trains on it in a second, and its daily runs with a real MLflow store."""

import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from pipelines.daily.layout import Layout
from pipelines.daily.run import run_day
from pipelines.daily.state import STEPS, DayState
from recsys.config import RunConfig, load
from recsys.simulate import Simulation, simulate

CONFIG = {
    "name": "small", "max_history": 20,
    "data": {
        "events": {
            "path": "events", "user": "user_id", "item": "item_id", "time": "time_ms", "time_unit": "ms",
            "history": "click = 1", "arrives": "by_folder", "slot": "slot",
        },
        "split": {"kind": "time", "valid_share": 0.15, "test_share": 0.2},
    },
    "retriever": {
        "encoder": {"kind": "mean_pooling", "dim": 16}, "loss": {"kind": "full_softmax"},
        "fit": {"epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "embedding_learning_rate": 0.05},
    },
    "promotion": {"floor": None, "slices": {}},
}  # fmt: skip


def day(number: int) -> date:
    return date(2026, 1, number)


@dataclass(frozen=True)
class World:
    """`whole` holds every day of the log; `raw` those that have arrived."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *, days: int = 8) -> "World":
        simulate(Simulation(users=200, items=80, events=20_000, days=days, categories=8), folder / "whole")
        return cls(folder)

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "daily")

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlruns/mlflow.db"

    @property
    def config_file(self) -> Path:
        path = self.folder / "small.yaml"
        path.write_text(yaml.safe_dump(CONFIG))
        return path

    def config(self, *overrides: str) -> RunConfig:
        return load(self.config_file, *overrides)

    def partition(self, number: int) -> Path:
        return self.raw / f"events/day={day(number)}"

    def arrive(self, *numbers: int) -> None:
        for number in numbers:
            shutil.copytree(self.whole / f"events/day={day(number)}", self.partition(number))

    def change(self, number: int) -> None:
        """Take the last ten rows out of a day."""
        (file,) = self.partition(number).iterdir()
        pl.read_parquet(file).head(-10).write_parquet(file)

    def run(self, number: int, *overrides: str, **options: Any) -> DayState:
        return run_day(self.config(*overrides), self.raw, self.layout.root, day(number), **{"uri": self.uri, **options})

    def run_until(self, number: int, last: str, *overrides: str, **options: Any) -> DayState:
        """The steps of a day up to this one: an export takes longer than all the others."""
        for step in STEPS[: STEPS.index(last) + 1]:
            state = self.run(number, *overrides, step=step, **options)
        return state

    def state(self, number: int) -> DayState:
        return DayState.load(self.layout.state(day(number)))

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file of the workspace with its size and time of change."""
        stats = {path: path.stat() for path in sorted(self.layout.root.rglob("*")) if path.is_file() and path.name != "lock"}
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}
