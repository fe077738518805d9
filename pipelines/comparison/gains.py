"""How far each user is better or worse off with a run than with its group's reference. Shapes: U = users, B = bins."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.comparison.comparison import Comparison
from pipelines.per_user import PER_USER_FILE, served
from recsys.metrics.direction import direction

BINS = 40
READERS = 4
MAX_METRICS = 8


@dataclass(frozen=True)
class Gain:
    """Users of one run: how many are better, as well and worse off, and the differences that are not 0, binned."""

    wins: int
    ties: int
    losses: int
    count_B: tuple[int, ...]


@dataclass(frozen=True)
class Gains:
    limit: float  # bins go from -limit to limit; what lies outside is in the last ones
    runs: dict[int, Gain]


def user_gains(comparison: Comparison, folders: Mapping[int, Path]) -> dict[str, Gains]:
    """metric -> run -> its users against those of its group's reference, of the first metrics that users have values of.

    `folders` are the runs' `metrics` artefacts, by place. A few runs are in memory at a time, beside the reference.
    """
    names = [row.metric.removeprefix("test/") for row in comparison.rows if row.metric.startswith("test/")]
    main = comparison.main_metric.removeprefix("test/")
    names.sort(key=lambda name: name != main)
    found: dict[str, Gains] = {}
    for group in comparison.groups:
        base = None if group.reference is None else read_users(folders.get(group.reference), names)
        if base is None:
            continue
        shown = [name for name in names if name in base.columns][:MAX_METRICS]
        others = [place for place in group.places if place != group.reference]
        for begin in range(0, len(others), READERS):
            some = others[begin : begin + READERS]
            with ThreadPoolExecutor(READERS) as threads:
                tables = list(threads.map(read_users, [folders.get(place) for place in some], [shown] * len(some)))
            for place, own in zip(some, tables, strict=True):
                for metric, gain in ({} if own is None else _against(own, base, shown, found)).items():
                    found[metric].runs[place] = gain
    return found


def read_users(folder: Path | None, metrics: list[str]) -> pl.DataFrame | None:
    """The users' values of the served model; None where they are absent or cannot be read."""
    try:
        return None if folder is None else served(folder, metrics)
    except (pl.exceptions.PolarsError, OSError):
        return None


def has_users(folder: Path | None) -> bool:
    """Whether there are users' values that can be read."""
    try:
        return folder is not None and "user" in pl.read_parquet_schema(folder / PER_USER_FILE)
    except (pl.exceptions.PolarsError, OSError):
        return False


def _against(own: pl.DataFrame, base: pl.DataFrame, metrics: list[str], found: dict[str, Gains]) -> dict[str, Gain]:
    """Of each metric that both have; the first run that is seen of a metric sets the reach of its bins in `found`."""
    shared = [name for name in metrics if name in own.columns]
    if own["user"].dtype != base["user"].dtype:
        return {}
    if own["user"].equals(base["user"]):
        joined = own.with_columns(base.select(pl.col(shared).name.suffix("|base")))
    else:
        joined = own.join(base, on="user", suffix="|base")
    gains = {}
    for name in shared:
        own_U, base_U = (joined[each].cast(pl.Float64).to_numpy() for each in (name, f"{name}|base"))
        change_U = own_U - base_U
        change_U = change_U[np.isfinite(change_U)]
        if len(change_U):
            top = float(np.nanmax(np.abs(base_U)))
            limit = found.setdefault(name, Gains(1.0 if top <= 1 else 2 * top, {})).limit
            moved_U = np.clip(change_U[change_U != 0], -limit, limit)
            count_B = np.histogram(moved_U, bins=BINS, range=(-limit, limit))[0]
            wins, losses = int((change_U > 0).sum()), int((change_U < 0).sum())
            if direction(name) < 0:
                wins, losses = losses, wins
            gains[name] = Gain(wins, len(change_U) - wins - losses, losses, tuple(count_B.tolist()))
    return gains
