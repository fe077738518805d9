"""A store of runs with everything a comparison reads, written through `recsys.track`, and a Comparison of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.comparison.comparison import Cell, Comparison, Difference, Group, Row
from recsys.track import PROTOCOL, Run, get_run, start_run

EXPERIMENT = "page"
METRICS = ("NDCG@10", "HR@10", "Recall@20")
MARK = "time split, seen items removed, ties by position [0123abcd]"
SLICES = ("cold", "warm", "head", "torso", "tail")
TASKS = ("click", "like")


@dataclass(frozen=True)
class Made:
    """A run of the store. `lift` raises its quality; `without` names what it does not store."""

    name: str
    lift: float = 0.0
    protocol: str = MARK
    data: str = "d1"
    without: frozenset[str] = field(default=frozenset())  # children, curves, users, slices, reliability, cost, latency


def make_run(uri: str, made: Made, folder: Path, *, users: int = 300, steps: int = 60, seed: int = 0) -> str:
    """A pipeline run, with a child for each training stage; its id."""
    random = np.random.default_rng(seed)
    value_MU = {name: _per_user(users, made.lift + 0.06 * place, random) for place, name in enumerate(METRICS)}
    with start_run(EXPERIMENT, made.name, data=made.data, uri=uri, tags={PROTOCOL: made.protocol}) as run:
        run.metrics({f"test/{name}": float(value_U.mean()) for name, value_U in value_MU.items()})
        run.metrics({f"floor/popularity/{name}": 0.12 for name in METRICS})
        run.metrics({f"test/AUC/{task}": 0.68 + made.lift + 0.02 * place for place, task in enumerate(TASKS)})
        run.metrics(_measures(made, random))
        if "children" in made.without and "curves" not in made.without:
            _log_curves(run, made, steps, random, ("retriever",))
        run.document(_document(made, users, random), "metrics/metrics.json")
        if "users" not in made.without:
            folder.mkdir(parents=True, exist_ok=True)
            served = pl.DataFrame({"user": np.arange(users), "model": ["model"] * users, **value_MU})
            floor = served.with_columns(model=pl.lit("popularity"), **{name: pl.lit(0.0) for name in METRICS})
            pl.concat([served, floor]).write_parquet(folder / "per_user.parquet")
            run.artefact(folder / "per_user.parquet", "metrics")
    for stage in () if "children" in made.without else ("retriever", "ranker"):
        tags = {"mlflow.parentRunId": run.run_id, "stage": stage}
        with start_run(EXPERIMENT, stage, data=made.data, uri=uri, tags=tags) as child:
            if "curves" not in made.without:
                _log_curves(child, made, steps, random, (stage,))
    return run.run_id


def _per_user(users: int, lift: float, random: np.random.Generator) -> np.ndarray:
    """Values as of NDCG: many zeros, some ones; the same users are hard for every run."""
    ease_U = np.random.default_rng(99).random(users)
    hit_U = ease_U + 0.08 * random.standard_normal(users) > 0.75 - lift
    return np.where(hit_U, np.round(1 / np.log2(random.integers(2, 12, users)), 4), 0.0)


def _measures(made: Made, random: np.random.Generator) -> dict[str, float]:
    cost = {"cost/train_s": 60 + 900 * random.random() * (1 + 4 * made.lift), "cost/peak_memory_gib": 1 + random.random(),
            "cost/parameters": float(random.integers(10**5, 10**7))}  # fmt: skip
    latency = {"export/latency_p50_ms": 2 + 3 * random.random(), "export/latency_p99_ms": 6 + 3 * random.random(),
               "export/bundle_mib": 8 + 8 * random.random()}  # fmt: skip
    slices = {
        f"slice/{kind}/{name}": 0.14 + 0.05 * place + made.lift + 0.03 * random.random()
        for place, kind in enumerate(SLICES) for name in METRICS
    }  # fmt: skip
    kinds = {"cost": cost, "latency": latency, "slices": slices}
    return {name: value for kind, values in kinds.items() if kind not in made.without for name, value in values.items()}


def _log_curves(run: Run, made: Made, steps: int, random: np.random.Generator, jobs: Sequence[str]) -> None:
    for job in jobs:
        valid = "NDCG@10" if job == "retriever" else "AUC/mean"
        for step in range(steps):
            done = 1 - math.exp(-4 * step / steps)
            run.metric(f"{job}/loss", 7 - (3 + 2 * made.lift) * done + 0.1 * random.standard_normal(), step)
            run.metric(f"{job}/seconds/data", 0.1, step)
            if step % 5 == 0:
                run.metric(f"{job}/valid/{valid}", (0.25 + made.lift) * done + 0.005 * random.standard_normal(), step)


def _document(made: Made, users: int, random: np.random.Generator) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    for task in TASKS:
        edges = np.linspace(0, 1, 11)
        bins = [
            {"low": low, "high": high, "mean": (low + high) / 2, "rows": int(4000 * math.exp(-4 * low)),
             "rate": min(1.0, max(0.0, (low + high) / 2 - 0.15 * (low - 0.3) + 0.03 * random.standard_normal()))}
            for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]  # fmt: skip
        tasks[task] = {"AUC": 0.7} | ({} if "reliability" in made.without else {"reliability": bins})
    return {"retrieval": {"users": users}, "ranking": {"examples": 9000, "tasks": tasks}}


def comparison_of(uri: str, ids: Sequence[str], values: Sequence[Path | None], warnings: tuple[str, ...] = ()) -> Comparison:
    """The comparison of these runs; `values` are their per-user files. A group's first run is its reference."""
    runs = tuple(get_run(each, uri=uri) for each in ids)
    places: dict[tuple[str, str], list[int]] = {}
    for place, run in enumerate(runs):
        places.setdefault((run.tags.get(PROTOCOL, "not stated"), run.tags["data"]), []).append(place)
    groups = tuple(Group(*marks, tuple(found), found[0]) for marks, found in places.items())
    read = [None if file is None else pl.read_parquet(file).filter(pl.col("model") == "model") for file in values]
    names = sorted({name for run in runs for name in run.metrics if name.startswith(("test/", "floor/", "export/"))})
    rows = []
    for name in names:
        cells: dict[int, Cell] = {}
        for group in groups:
            values_of = {place: runs[place].metrics.get(name) for place in group.places}
            best = max((value for value in values_of.values() if value is not None), default=None)
            for place in group.places:
                cells[place] = _cell(name, place, values_of[place], best, read, group.reference)
        rows.append(Row(name, int(name.startswith("test/")), tuple(cells[place] for place in range(len(runs)))))
    return Comparison(EXPERIMENT, "test/NDCG@10", runs, tuple(rows), groups, warnings, tuple(() for _ in runs))


def _cell(
    name: str, place: int, value: float | None, best: float | None, read: Sequence[pl.DataFrame | None], reference: int | None
) -> Cell:
    bare, own = name.removeprefix("test/"), read[place]
    if own is None or bare not in own.columns or value is None:
        return Cell(value, best=value == best and value is not None and name.startswith("test/"))
    half = 1.96 * own[bare].std() / math.sqrt(len(own))  # type: ignore[operator]
    base = None if reference is None or reference == place else read[reference]
    difference = None
    if base is not None:
        change = own[bare] - base[bare]
        mean, error = float(change.mean()), float(change.std()) / math.sqrt(len(change)) + 1e-12  # type: ignore[arg-type]
        p = math.erfc(abs(mean) / error / math.sqrt(2))
        wins, losses = int((change > 0).sum()), int((change < 0).sum())
        difference = Difference(
            mean, mean - 1.96 * error, mean + 1.96 * error, p, p, p, min(1.0, 3 * p), len(change), wins, losses
        )
    return Cell(value, value - half, value + half, value == best, value < 0.12, difference)


def filled(uri: str, folder: Path, made: Sequence[Made], **size: int) -> Comparison:
    """Make the runs, and compare them. One warning is given, with a name as markup."""
    places = [folder / str(number) for number in range(len(made))]
    ids = [
        make_run(uri, each, place, seed=number, **size) for number, (each, place) in enumerate(zip(made, places, strict=True))
    ]
    files = [None if "users" in each.without else place / "per_user.parquet" for each, place in zip(made, places, strict=True)]
    return comparison_of(uri, ids, files, ("different protocols, and a run named <script>alert(1)</script>",))
