"""A log whose second half is posted to an endpoint, and lists that were asked for meanwhile: a small chain with features."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml

from pipelines.export import export_run
from pipelines.train import train_ranker, train_retriever
from pipelines.workspace import Workspace
from recsys.config import RunConfig, load
from recsys.data.build import build
from recsys.data.engines import engine
from recsys.dataset import Dataset
from serving.bundle.bundle import Bundle
from serving.cascade.asked import Asked, resolve
from serving.cascade.probabilities import probabilities
from serving.schema import Asker
from serving.state.store import Live, LiveEvent

T0, HOUR, DAYS, CUT_DAY = 1_700_006_400_000, 3_600_000, 10, 7
CUT_MS = T0 + CUT_DAY * 24 * HOUR
USERS, ITEMS, ROWS = 30, 25, 1500
FEATURES: dict[str, Any] = {
    "user_clicks": {"kind": "count", "by": ["user"], "event": "click", "window": "3d"},
    "user_likes": {"kind": "count", "by": ["user"], "event": "like", "half_life": "20h"},
    "taste": {"kind": "rate", "by": ["user", "kind"], "event": "like", "of": "history", "prior": 0.2, "strength": 3},
    "since_like": {"kind": "recency", "by": ["user"], "event": "like", "unit": "1h"},
    "session_position": {"kind": "session_position", "gap": "2h"},
    "item_rate": {"kind": "rate", "by": ["item"], "event": "click", "window": "2d", "prior": 0.3, "strength": 5},
    "of_country": {"kind": "count", "by": ["country", "kind"], "event": "like", "half_life": "1d", "delay": "1h"},
}
BY_USER = ("user_clicks", "user_likes", "taste", "since_like", "session_position")
CONFIG: dict[str, Any] = {
    "name": "served", "max_history": 20,
    "data": {
        "events": {
            "path": "log", "user": "u", "item": "i", "time": "t", "time_unit": "ms",
            "labels": {"click": "click", "like": "\"like\""}, "context": {"page": "page"},
        },
        "users": {"path": "users.parquet", "id": "u", "features": {"country": "country"}},
        "items": {"path": "items.parquet", "id": "i", "features": {"kind": "kind"}},
        "split": {"kind": "time", "valid_share": 0.15, "test_share": 0.15},
        "features": FEATURES,
    },
    "retriever": {"encoder": {"kind": "sasrec", "dim": 8, "blocks": 1, "heads": 1}, "fit": {"epochs": 1}},
    "ranker": {"dim": 8, "sharing": {"kind": "dtrn"}, "fit": {"epochs": 1, "batch_size": 64}},
    "evaluation": {"ks": [5]},
    "serving": {"num_candidates": 10, "ranked": 6, "history": ["view"]},  # a row is a view, and says what it led to
}  # fmt: skip


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def log() -> pl.DataFrame:
    """Every row is a view; a user does nothing twice in one millisecond."""
    rng = np.random.default_rng(3)
    time_ms = T0 + rng.choice(DAYS * 24 * HOUR, ROWS, replace=False)
    return pl.DataFrame({
        "u": [f"u{n}" for n in rng.integers(0, USERS, ROWS)], "i": [f"i{n}" for n in rng.integers(0, ITEMS, ROWS)],
        "t": np.sort(time_ms), "click": rng.integers(0, 2, ROWS), "like": (rng.random(ROWS) < 0.2).astype(int),
        "page": [f"p{n}" for n in rng.integers(0, 3, ROWS)],
    })  # fmt: skip


def write_log(raw: Path, rows: pl.DataFrame) -> None:
    (raw / "log").mkdir(parents=True, exist_ok=True)
    rows.write_parquet(raw / "log" / "all.parquet")
    kinds, countries = [f"k{n % 4}" for n in range(ITEMS)], [f"c{n % 3}" for n in range(USERS)]
    pl.DataFrame({"i": [f"i{n}" for n in range(ITEMS)], "kind": kinds}).write_parquet(raw / "items.parquet")
    pl.DataFrame({"u": [f"u{n}" for n in range(USERS)], "country": countries}).write_parquet(raw / "users.parquet")


@dataclass(frozen=True)
class Served:
    """A bundle of the first days, and in `workspace` the dataset of all days."""

    config: RunConfig
    workspace: Workspace
    bundle: Path
    yaml: Path

    @property
    def data(self) -> Dataset:
        return Dataset(self.workspace.dataset)


def make_served(root: Path, group: torch.device) -> Served:
    """One epoch is enough: what is asked is whether two ways give the same, not how good it is."""
    path, rows = root / "served.yaml", log()
    path.write_text(yaml.safe_dump(CONFIG))
    config, early = load(path), Workspace(root / "early")
    write_log(early.raw, rows.filter(pl.col("t") < CUT_MS))
    build(config.data, early.raw, early.dataset, engine=engine())
    data = Dataset(early.dataset)
    train_retriever(config, data, early.checkpoint("retriever"), device=group, progress=Silent())
    train_ranker(config, data, early.checkpoint("ranker"), device=group, progress=Silent())
    export_run(config, data, early, device=group)
    whole = Workspace(root / "whole")
    write_log(whole.raw, rows)
    build(config.data, whole.raw, whole.dataset, engine=engine())
    return Served(config, whole, early.bundle, path)


def live_of(user: str, before_ms: int, *, left_out: int | None = None) -> Live:
    """What a client has posted of the user up to a moment; `left_out`: a row that was lost."""
    rows = log().filter((pl.col("u") == user) & (pl.col("t") >= CUT_MS) & (pl.col("t") < before_ms))
    found = []
    for n, row in enumerate(rows.iter_rows(named=True)):
        if n == left_out:
            continue
        events = ["view", *(name for name in ("click", "like") if row[name])]
        found += [LiveEvent(f"{user}-{n}-{event}", row["i"], event, row["t"]) for event in events]
    return Live(tuple(found))


def question(bundle: Bundle, user: str, time_ms: int, *, live: Live | None = None) -> Asked:
    asker = Asker(user_id=user, time_ms=time_ms, context={"page": "p1"})
    return resolve(bundle, asker, live_of(user, time_ms) if live is None else live)


def record(bundle: Bundle, user: str, time_ms: int, *, live: Live | None = None) -> dict[str, Any]:
    """The line of the journal for a request that ranks all items."""
    asked = question(bundle, user, time_ms, live=live)
    assert bundle.features is not None
    item_K = np.arange(2, bundle.facts.num_items)
    probability_KT = probabilities(bundle, [asked], item_K[None])[0]
    return {
        "request_id": f"r-{user}-{time_ms}", "user_id": user, "time_ms": time_ms, "version": bundle.version,
        "history": [bundle.item_id(int(item)) for item in asked.history_L],
        "history_ms": asked.time_M[:-1].tolist(), "behaviours": asked.behaviour_L.tolist(), "context": {"page": "p1"},
        "items": [bundle.item_id(int(item)) for item in item_K],
        "dense": bundle.features.by_name(asked, item_K),
        "tasks": {task: probability_KT[:, t].tolist() for t, task in enumerate(bundle.facts.tasks)},
        "value": probability_KT.sum(axis=1).tolist(),
    }  # fmt: skip


def write_journal(live: Path, records: list[dict[str, Any]]) -> None:
    folder = live / "journal" / "requests"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "2023-11-22-1.ndjson").write_text("".join(json.dumps(each) + "\n" for each in records))
