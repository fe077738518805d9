"""Whether the metrics of two runs of one config agree. Shapes: U = users."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipelines.per_user import PER_USER_FILE, served
from recsys.track import MEASURED

JUDGED = MEASURED  # what a model or a floor is worth; costs and latencies belong to the machine
EXACT = 1e-9  # relative: what storing a number may cost
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Line:
    """One metric of both runs; `tolerance` is None where nothing says how far it may move, and it is shown only."""

    metric: str
    stored: float
    now: float
    tolerance: float | None

    @property
    def difference(self) -> float:
        return 0.0 if self.stored != self.stored and self.now != self.now else self.now - self.stored

    @property
    def agrees(self) -> bool | None:
        """None: not judged. A value that is not a number agrees only with another one."""
        return None if self.tolerance is None else abs(self.difference) <= self.tolerance


def judged(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith(JUDGED)}


def lines(stored: Mapping[str, float], now: Mapping[str, float], allowed: Mapping[str, float | None]) -> list[Line]:
    """Every metric that both have, by name."""
    stored, now = judged(stored), judged(now)
    return [Line(name, stored[name], now[name], allowed[name]) for name in sorted(stored.keys() & now.keys())]


def exactly(stored: Mapping[str, float]) -> dict[str, float | None]:
    """The tolerance of runs of the same code, packages, dataset and machine: training is deterministic there."""
    return {name: EXACT * max(1.0, abs(value)) for name, value in stored.items()}


def within_intervals(stored: Mapping[str, float], folder: Path | None) -> dict[str, float | None]:
    """The tolerance of runs that do not share all of these: half of the 95 % interval over users of the stored value.

    Floors are counted, not trained, and stay exact. What has no interval is not judged.
    """
    half = _half_widths(folder)
    found: dict[str, float | None] = {}
    for name, value in stored.items():
        metric = name.removeprefix("test/")
        base, _, task = metric.partition("/")
        low, high = (stored.get(f"test/{base}_{end}/{task}") for end in ("low", "high"))
        if name.startswith("floor/"):
            found[name] = EXACT * max(1.0, abs(value))
        elif name.startswith("test/") and metric in half:
            found[name] = half[metric]
        elif low is not None and high is not None:
            found[name] = (high - low) / 2
        else:
            found[name] = None
    return found


def _half_widths(folder: Path | None) -> dict[str, float]:
    """Metric -> half of its 95 % interval over users by the normal approximation, of the rows of the served model."""
    if folder is None or not (folder / PER_USER_FILE).is_file():
        return {}
    value_U = served(folder).drop("user")
    spread = value_U.select(pl.all().std() / pl.all().count().sqrt()).row(0, named=True) if len(value_U) > 1 else {}
    return {name: Z * value for name, value in spread.items() if value is not None}
