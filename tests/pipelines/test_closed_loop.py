"""The closed loop with the real endpoint: two days of a small world, served, logged, learned from and served again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from pipelines.loop import pages
from pipelines.loop.command import run_loop
from pipelines.loop.plan import LoopConfig
from recsys.errors import InputError
from recsys.simulate.world import TASKS

DAYS = ("2026-01-04", "2026-01-05")
WORLD: dict[str, Any] = {"users": 40, "items": 60, "events": 3 * 600, "categories": 5, "drift": 0.1, "seed": 2}
CONFIG: dict[str, Any] = {  # a retriever alone, which exports in a second
    "name": "looped", "max_history": 20,
    "data": {
        "events": {
            "path": "events", "user": "user_id", "item": "item_id", "time": "time_ms", "time_unit": "ms",
            "arrives": "by_folder", "history": "click = 1", "propensity": "propensity", "slot": "slot", "ties": "simultaneous",
            "context": {"hour": "FLOOR(time_ms / 3600000) % 24"},
        },
        "users": {"path": "users.parquet", "id": "user_id", "features": {"country": "country"}},
        "items": {"path": "items.parquet", "id": "item_id", "title": "title", "features": {"category": "category"}},
        "split": {"kind": "time", "valid_share": 0.1, "test_share": 0.1},
    },
    "retriever": {"encoder": {"kind": "mean_pooling", "dim": 8}, "fit": {"epochs": 2, "embedding_learning_rate": 0.05}},
    "evaluation": {"ks": [10]},
    "promotion": {"floor": None, "champion": None, "slices": {}}, "serving": {"history": ["click"]},
}  # fmt: skip
EXPLORES = "explores: {loop.train_every: 0, serving.rerank: [{kind: explore, rate: 0.5, draw: uniform}]}"


@contextmanager
def in_one_group(group: torch.device) -> Iterator[None]:
    """This process has its process group already."""

    @contextmanager
    def joined() -> Iterator[torch.device]:
        yield group

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.train.distributed.process_group", joined)
        patch.setattr("pipelines.daily.champion.process_group", joined, raising=False)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def config(folder: Path) -> str:
    path = folder / "looped.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return str(path)


@pytest.fixture(scope="module")
def found(config: str, folder: Path, group: torch.device) -> dict[str, Any]:
    """A policy that learns every day, beside one that explores and stays as it is."""
    with in_one_group(group):
        return run_loop(config, folder, LoopConfig(days=2, warm_up=3), vary=[EXPLORES], **WORLD)


def lines(folder: Path, day: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "pages" / f"{day}-0.ndjson").read_text().splitlines()]


def journal(folder: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted((folder / "live/journal/events").rglob(f"*.{kind}.ndjson"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_each_day_is_served_by_the_model_of_the_day_before(found: dict[str, Any]) -> None:
    first, second = found["policies"]["base"]["days"]
    assert [first["day"], second["day"]] == list(DAYS)
    assert first["promoted"]
    assert second["promoted"]
    assert len(first["versions"]) == len(second["versions"]) == 1
    assert first["versions"] != second["versions"]
    assert first["mode"] == second["mode"] == "warm"
    assert first["data_to_live_s"] >= sum(first["seconds"].values())
    frozen = found["policies"]["explores"]["days"]
    assert frozen[0]["versions"] == frozen[1]["versions"]
    assert not frozen[0]["trained"]


@pytest.mark.parametrize("name", ["base", "explores"])
def test_the_journal_says_what_the_raw_log_says(found: dict[str, Any], folder: Path, name: str) -> None:
    """Item by item: what the server wrote of its lists, the partition that training reads, and the posted events."""
    root = folder / name
    shown = pl.DataFrame(journal(root, "shown"), infer_schema_length=None).sort("time_ms", "slot")
    raw = pl.concat([pl.read_parquet(root / f"raw/events/day={day}/*.parquet") for day in DAYS]).sort("time_ms", "slot")
    assert shown.height == raw.height == sum(day["impressions"] for day in found["policies"][name]["days"])
    keys = ["user_id", "item_id", "time_ms"]
    assert shown.select(keys).equals(raw.select(keys))
    chances = [table["propensity"].cast(pl.Float64).fill_null(-1).to_numpy() for table in (shown, raw)]
    assert np.allclose(chances[0], chances[1], rtol=1e-6)
    posted = {(e["user_id"], e["item_id"], e["time_ms"], e["event"]) for e in journal(root, "posted")}
    said = {(*row[:3], task) for task in TASKS for row in raw.filter(pl.col(task) == 1).select(keys).iter_rows()}
    assert posted == said
    assert len(said) > 20


def test_what_explores_has_chances_in_the_log(found: dict[str, Any], folder: Path) -> None:
    explored = pl.read_parquet(folder / f"explores/raw/events/day={DAYS[0]}/*.parquet")["propensity"]
    fell_back = [line for line in lines(folder / "explores", DAYS[0]) if line["fallback"]]  # chance has no part in these
    assert explored.null_count() == sum(len(line["items"]) for line in fell_back) < 100
    assert 0 < explored.min() < 0.1
    assert found["policies"]["explores"]["mean"]["coverage"] > found["policies"]["base"]["mean"]["coverage"]
    assert pl.read_parquet(folder / f"base/raw/events/day={DAYS[0]}/*.parquet")["propensity"].null_count() == 600


def test_the_daily_dataset_has_every_day(found: dict[str, Any], folder: Path) -> None:
    manifest = json.loads((folder / f"base/daily/days/{DAYS[1]}/dataset/manifest.json").read_text())
    assert manifest["units"] == [f"events/day=2026-01-0{day}" for day in range(1, 6)]
    rows = pl.read_parquet(folder / "base/raw/events/**/*.parquet")
    assert manifest["report"]["rows_kept"] == rows.height == 5 * 600
    assert manifest["report"]["timeline_events"] == rows["click"].sum()


def test_policies_are_compared_page_by_page(found: dict[str, Any], folder: Path) -> None:
    assert found["policies"]["base"]["beside_base"] is None
    against = found["policies"]["explores"]["beside_base"]
    assert against["low"] < against["mean"] < against["high"]
    users = [np.load(folder / name / f"days/{DAYS[0]}.npz")["user_R"] for name in ("base", "explores")]
    assert np.array_equal(users[0], users[1])
    for name in ("base", "explores"):
        for day in found["policies"][name]["days"]:
            assert 0 < day["regret"] < 1
            assert day["logging_regret"] < day["uniform_regret"]
            assert day["value"] < day["best"]
    written = json.loads((folder / "loop.json").read_text())
    assert written["policies"] == json.loads(json.dumps(found["policies"]))
    assert "| explores |" in (folder / "loop.md").read_text()
    assert (folder / "loop.png").read_bytes().startswith(b"\x89PNG")


def test_a_loop_that_is_done_is_only_reported_again(config: str, found: dict[str, Any], folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ndjson")}
    again = run_loop(config, folder, LoopConfig(days=2, warm_up=3), vary=[EXPLORES], **WORLD)
    assert again["policies"] == found["policies"]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.ndjson")}
    with pytest.raises(InputError, match="was played with another world"):
        run_loop(config, folder, LoopConfig(days=2, warm_up=3), **{**WORLD, "seed": 3})


def test_a_loop_that_is_killed_goes_on_with_the_same_lists(
    tmp_path: Path, config: str, folder: Path, found: dict[str, Any], group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the worst moment, when a page is written and only just posted, and with half a line."""
    calls, post = [0], pages._post

    def stops(*args: Any) -> None:
        post(*args)
        calls[0] += 1
        if calls[0] == 25:
            raise KeyboardInterrupt

    loop = LoopConfig(days=1, warm_up=3, train_every=0)
    monkeypatch.setattr(pages, "_post", stops)
    with in_one_group(group), pytest.raises(KeyboardInterrupt):
        run_loop(config, tmp_path, loop, **WORLD)
    assert len(lines(tmp_path / "base", DAYS[0])) == 25
    with (tmp_path / "base/pages" / f"{DAYS[0]}-0.ndjson").open("a") as file:
        file.write('{"page": 205, "it')
    with in_one_group(group):
        run_loop(config, tmp_path, loop, **WORLD)
    undisturbed = lines(folder / "base", DAYS[0])
    assert len(undisturbed) == 60
    assert [line["items"] for line in lines(tmp_path / "base", DAYS[0])] == [line["items"] for line in undisturbed]
    ids = [each["id"] for each in journal(tmp_path / "base", "posted")]
    assert len(ids) == len(set(ids))
