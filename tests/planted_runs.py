"""Runs in a real store whose results are known, for what compares them. Shapes: U = users."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from recsys import track
from recsys.artefact import fingerprint

EXPERIMENT = "recsys"


def rules(**changed: Any) -> dict[str, Any]:
    """A protocol as metrics.json holds it, some rules of it changed."""
    document = {
        "split": {"kind": "time", "test_share": 0.1}, "seen_items": "removed", "ks": [10, 20], "score_ties": "lower id first",
        **changed,
    }  # fmt: skip
    return {**document, "hash": fingerprint(document)}


def plant_run(
    store: str, name: str, *, experiment: str = EXPERIMENT, per_user: Mapping[str, np.ndarray] | None = None,
    users: np.ndarray | None = None, metrics: Mapping[str, float] | None = None,
    protocol: Mapping[str, Any] | str | None = "time",
    data: str = "d1", tags: Mapping[str, str] | None = None, document: bool = True, params: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """A finished run with test metrics: `metrics` as they are named in MLflow, and means of `per_user` (NDCG@10 -> value_U).

    `protocol`: the rules, or only the tag (then metrics.json states the default rules), or None for a run that states none.
    Returns its id.
    """
    known = protocol if isinstance(protocol, Mapping) else rules()
    line = protocol if isinstance(protocol, str) else f"{known['split']['kind']} split [{known['hash']}]"
    means = {f"test/{metric}": float(np.mean(value_U)) for metric, value_U in (per_user or {}).items()}
    tagged = {**({} if protocol is None else {track.PROTOCOL: line}), **(tags or {})}
    with (
        track.start_run(experiment, name, data=data, uri=store, tags=tagged, params=params) as run,
        TemporaryDirectory() as folder,
    ):
        run.metrics({**means, **(metrics or {})})
        if per_user is not None:
            run.artefact(write_users(Path(folder) / "per_user.parquet", per_user, users), "metrics")
        if document:
            file = Path(folder) / "metrics.json"
            file.write_text(json.dumps({"protocol": known, "retrieval": {"model": dict(means)}}))
            run.artefact(file, "metrics")
    return run.run_id


def write_users(file: Path, per_user: Mapping[str, np.ndarray], users: np.ndarray | None = None) -> Path:
    """per_user.parquet of the served model and of a floor that finds nothing."""
    count = len(next(iter(per_user.values())))
    user_U = np.arange(count) if users is None else users
    served = pl.DataFrame({"user": user_U, **per_user}).with_columns(model=pl.lit("model"))
    floor = served.with_columns([pl.lit(0.0).alias(metric) for metric in per_user]).with_columns(model=pl.lit("popularity"))
    pl.concat([served, floor]).write_parquet(file)
    return file


def hits(users: int, share: float, seed: int = 0, *, shared_seed: int = 99) -> np.ndarray:
    """value_U, 1 for about `share` of the users and 0 else; what makes a user hard is shared by all seeds."""
    hard_U, own_U = (np.random.default_rng(each).normal(size=users) for each in (shared_seed, seed))
    mixed_U = 0.9 * hard_U + (1 - 0.9**2) ** 0.5 * own_U
    return (mixed_U < np.quantile(mixed_U, share)).astype(float)
