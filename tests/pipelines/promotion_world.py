"""Planted runs and versions in a real store: what a pipeline run leaves, with numbers that a test chooses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recsys import track
from recsys.artefact import write_artefact

METRIC = "NDCG@10"
USERS = 400
STANDARD = ("head", "torso", "tail", "cold", "warm")


def values(mean: float, *, seed: int = 0, spread: float = 0.2, users: int = USERS) -> np.ndarray:
    """value_U around a mean, exactly on it: each user's is paired with one as far on the other side."""
    half = np.random.default_rng(seed).uniform(0, spread, users // 2)
    return mean + np.concatenate([half, -half])


@dataclass(frozen=True)
class World:
    """A store and one registered model in it."""

    uri: str
    model: str
    folder: Path
    floors: Mapping[str, np.ndarray] = field(default_factory=lambda: {"popularity": values(0.10, seed=1)})

    def good(self, mean: float = 0.2) -> dict[str, float]:
        slices = {f"slice/{name}/{METRIC}": mean for name in STANDARD}
        floors = {f"floor/{name}/{METRIC}": float(value_U.mean()) for name, value_U in self.floors.items()}
        measured = {"export/parity_max_error": 1e-6, "export/latency_p99_ms": 5.0, "export/bundle_mib": 2.0}
        lists = {"test/coverage@10": 0.3, "test/popularity_lift@10": 0.5, "test/ECE/click": 0.02}
        return {f"test/{METRIC}": mean, **floors, **slices, **measured, **lists}

    def add(
        self, value_U: np.ndarray | None = None, *, change: Mapping[str, float | None] | None = None,
        protocol: str = "p1", data: str = "d1", per_user: bool = True, slice_users: Mapping[str, int] | None = None,
    ) -> int:  # fmt: skip
        """A version, the candidate, whose run has these values by user; `change` overrides metrics, None takes one away."""
        value_U = values(0.2) if value_U is None else value_U
        metrics = {**self.good(float(value_U.mean())), **(change or {})}
        with track.start_run(self.model, "r", data=data, uri=self.uri, tags={track.PROTOCOL: protocol}) as run:
            run.metrics({name: value for name, value in metrics.items() if value is not None})
            self._files(value_U, slice_users or dict.fromkeys(STANDARD, USERS * 5))
            if per_user:
                run.artefact(self.folder / "per_user.parquet", "metrics")
            run.artefact(self.folder / "metrics.json", "metrics")
            run.artefact(self.folder / "bundle")
        return track.register(run.run_id, self.model, "candidate", uri=self.uri)

    def _files(self, value_U: np.ndarray, slice_users: Mapping[str, int]) -> None:
        users = np.arange(len(value_U))
        tables = [
            pl.DataFrame({"user": users, "model": name, METRIC: column_U})
            for name, column_U in {
                "model": value_U,
                **{name: floor_U[: len(users)] for name, floor_U in self.floors.items()},
            }.items()
        ]
        self.folder.mkdir(exist_ok=True)
        pl.concat(tables).sample(fraction=1.0, shuffle=True, seed=len(users)).write_parquet(self.folder / "per_user.parquet")
        slices = {name: {"users": users, "model": {}} for name, users in slice_users.items()}
        (self.folder / "metrics.json").write_text(json.dumps({"retrieval": {"slices": slices}}))
        with write_artefact(self.folder / "bundle", "bundle") as (folder, _):
            (folder / "retrieval.onnx").write_text("graph")

    def aliases(self) -> dict[str, int | None]:
        found = {name: track.get_alias(self.model, name, uri=self.uri) for name in ("champion", "previous")}
        return {name: version.number if version else None for name, version in found.items()}

    def tags(self, number: int) -> dict[str, str]:
        return track.get_version(self.model, number, uri=self.uri).tags

    def run_id(self, number: int) -> str:
        return track.get_version(self.model, number, uri=self.uri).run_id
