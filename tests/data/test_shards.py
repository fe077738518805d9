"""What a build gives does not hang on the number of shards, on the engine that runs its tasks, or on how rows are read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest
from dataset_contents import assert_same
from growing_log import DTYPES, EVENTS, FIXED, T0, config, days, write_day, write_tables

from recsys.data import build as building
from recsys.data import ingest
from recsys.data.build import build
from recsys.data.engines import Pool, Processes, Progress, Ray, Threads

T = TypeVar("T")
R = TypeVar("R")
LABELS = {
    "click": "click",
    "again": {"kind": "within", "event": "click = 1", "within": "1d", "per": "user"},
    "watched": {"kind": "quantile", "value": "dwell", "by": "click"},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "appendable": {"split": FIXED},
    "without features": {"split": FIXED, "features": {}, "events": EVENTS | {"max_lateness": "2d"}},
    "filtered": {
        "events": EVENTS | {"arrives": "together", "labels": LABELS},
        "split": {"kind": "random", "seed": 3},
        "filters": {"min_user_events": 3, "min_item_events": 3, "max_bad_share": 0.9},
        "steps": [{"kind": "first_touch"}, {"kind": "burst", "max_events": 3, "within": "1h"}],
        "features": {"ctr": {"kind": "rate", "by": ["item", "tier"], "event": "click", "prior": 0.1, "strength": 5}},
    },
    "sessions": {
        "events": EVENTS | {"arrives": "together", "conflicts": "quarantine"},
        "split": {"kind": "time", "valid_share": 0.2, "test_share": 0.2},
        "steps": [{"kind": "sessions", "gap": "8h", "min_events": 2}],
    },
}


@pytest.fixture
def log(raw: Path) -> Path:
    write_tables(raw)
    for day, frame in enumerate(days()):
        write_day(raw, day, frame, files=2)
    return raw


def made(raw: Path, out: Path, name: str, shards: int) -> dict[str, Any]:
    return build(config(**CONFIGS[name], shards=shards), raw, out)


@pytest.mark.parametrize(("name", "numbers"), [("appendable", (2, 7, 16)), ("filtered", (2, 16)), ("sessions", (7,))])
def test_any_number_of_shards_gives_the_same_dataset(log: Path, tmp_path: Path, name: str, numbers: tuple[int, ...]) -> None:
    made(log, tmp_path / "1", name, 1)
    for shards in numbers:
        manifest = made(log, tmp_path / f"{shards}", name, shards)
        assert len(manifest["segments"]["examples"]) > 1
        assert_same(tmp_path / f"{shards}", tmp_path / "1")


@pytest.mark.parametrize("name", ["appendable", "without features"])
def test_shards_are_appended_to(log: Path, tmp_path: Path, name: str) -> None:
    folders = [log / "log" / f"d={day}" for day in (5, 6)]
    for folder in folders:
        folder.rename(tmp_path / folder.name)
    first = made(log, tmp_path / "grown", name, 7)
    for folder in folders:
        (tmp_path / folder.name).rename(folder)
        grown = made(log, tmp_path / "grown", name, 7)
        assert grown["report"]["built"].startswith("appended")
    assert len(grown["segments"]["examples"]) > len(first["segments"]["examples"]) > 1
    made(log, tmp_path / "fresh", name, 1)
    assert_same(tmp_path / "grown", tmp_path / "fresh")


def test_the_same_input_gives_the_same_bytes_however_it_is_read(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = made(log, tmp_path / "a", "filtered", 3)["files"]
    assert made(log, tmp_path / "b", "filtered", 3)["files"] == files
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 5)
    monkeypatch.setattr(building, "TASK_BYTES", 1)  # a task for every file
    assert made(log, tmp_path / "c", "filtered", 3)["files"] == files


@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_every_engine_gives_the_same_bytes(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "ray":
        pytest.importorskip("ray")
    monkeypatch.setattr(building, "TASK_BYTES", 1)
    engine = {"processes": Processes(workers=2), "ray": Ray(workers=2)}[kind]
    seen: set[str] = set()
    data = config(**CONFIGS["filtered"], shards=5)
    found = build(data, log, tmp_path / kind, engine=engine, progress=lambda name, done, total: seen.add(name))
    assert found["files"] == build(data, log, tmp_path / "threads")["files"]
    assert {"read and validate", "sort and check", "point-in-time features", "fit labels"} <= seen
    assert_same(tmp_path / kind, tmp_path / "threads")


class Twice(Threads):
    """Every task a second time, as after a worker was killed when it was nearly done."""

    @contextmanager
    def open(self) -> Iterator[Pool]:
        with super().open() as pool:
            yield _TwicePool(pool)


@dataclass
class _TwicePool:
    pool: Pool

    def map(self, function: Callable[[T], R], tasks: Sequence[T], *, name: str, progress: Progress | None = None) -> list[R]:
        self.pool.map(function, tasks, name=name)
        return self.pool.map(function, tasks, name=name, progress=progress)


@pytest.mark.parametrize("name", ["appendable", "filtered", "sessions"])
def test_a_task_that_runs_again_changes_nothing(log: Path, tmp_path: Path, name: str) -> None:
    bad = pl.DataFrame([(None, "i1", T0, 1, 1, "x"), ("u99", None, T0, 0, 1, "x")], DTYPES, orient="row")
    write_day(log, 7, bad)
    data = config(**CONFIGS[name], shards=2)
    assert build(data, log, tmp_path / "twice", engine=Twice())["files"] == build(data, log, tmp_path / "once")["files"]
