"""What runs have stored beside their metrics, as far as it can be read: values of every user, the protocol's rules.

Shapes: U = users whom a run judged.
"""

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.per_user import FOLDER, METRICS_FILE, PER_USER_FILE, served
from recsys.track import RunSummary, artefacts

TEST = "test/"
READERS = 4
AGREES = 1e-6  # a mean that has gone through the store and one that is taken again


@dataclass
class Kept:
    """Of one run. `value`: metric, as in NDCG@10, -> value_U in the order of `user_U`; empty where nothing can be read."""

    user_U: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    value: dict[str, np.ndarray] = field(default_factory=dict)
    protocol: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def read_kept(runs: Sequence[RunSummary], metrics: Sequence[str], *, uri: str | None) -> list[Kept]:
    """Of each run, the users' values of `metrics` (test/NDCG@10; those that are no mean over users are passed over)."""
    wanted = [name.removeprefix(TEST) for name in metrics if name.startswith(TEST) and "@" in name and name.count("/") == 1]
    folders = artefacts(runs, FOLDER, uri=uri)
    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(lambda run: _read(run, folders.get(run.id), wanted), runs))


def _read(run: RunSummary, folder: Path | None, wanted: Sequence[str]) -> Kept:
    kept = Kept()
    if not any(name.startswith(TEST) for name in run.metrics):
        kept.notes.append("not evaluated: run `recsys evaluate`")
        return kept
    _read_protocol(kept, folder)
    if folder is None or not (folder / PER_USER_FILE).is_file():
        kept.notes.append("no per-user values, so no interval: evaluate again")
        return kept
    try:
        table = served(folder, wanted)
    except (pl.exceptions.PolarsError, OSError) as error:
        kept.notes.append(f"per_user.parquet cannot be read ({str(error).partition(chr(10))[0]:.80}): evaluate again")
        return kept
    if table["user"].is_duplicated().any():
        kept.notes.append("per_user.parquet names a user twice: evaluate again")
        return kept
    kept.user_U = table["user"].to_numpy()
    _take(kept, run, table)
    return kept


def _take(kept: Kept, run: RunSummary, table: pl.DataFrame) -> None:
    """Each metric whose mean over users is what the run says it is."""
    for name in table.columns[1:]:
        value_U = table[name].cast(pl.Float64).fill_null(math.nan).to_numpy()
        known_U = np.isfinite(value_U)  # a metric may not exist for a user, whose mean is then over the others
        logged, mean = run.metrics.get(TEST + name, math.nan), float(value_U[known_U].mean()) if known_U.any() else math.nan
        if abs(logged - mean) <= AGREES:
            kept.value[name] = value_U
        elif not math.isnan(logged):
            kept.notes.append(f"users' mean of {name} is {mean:.4f} and the run's {logged:.4f}, so no interval: evaluate again")


def _read_protocol(kept: Kept, folder: Path | None) -> None:
    file = None if folder is None else folder / METRICS_FILE
    if file is None or not file.is_file():
        return
    try:
        found = json.loads(file.read_text())
    except (ValueError, OSError):
        kept.notes.append("metrics.json cannot be read: evaluate again")
        return
    protocol = found.get("protocol") if isinstance(found, dict) else None
    if isinstance(protocol, dict) and "hash" in protocol:
        kept.protocol = protocol
    else:
        kept.notes.append("metrics.json is of an older version and does not say its protocol's rules: evaluate again")
