import json
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.artefact import read_manifest
from recsys.simulate import Simulation, simulate

SMALL: dict[str, Any] = {"users": 200, "items": 100, "events": 4000, "days": 4, "categories": 5}
FUNNEL = ["click", "long_view", "like", "purchase"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulate") / "raw"
    simulate(Simulation(), folder)
    return folder


@pytest.fixture(scope="module")
def log(world: Path) -> pl.DataFrame:
    """Events and truth side by side."""
    truth = pl.read_parquet(world / "truth/events", hive_partitioning=True).rename({"day": "truth_day"})
    return pl.read_parquet(world / "events", hive_partitioning=True).hstack(truth)


def test_same_settings_same_bytes_and_another_seed_differs(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        simulate(Simulation(**SMALL, seed=seed), tmp_path / name)
    a, b, c = (read_manifest(tmp_path / name, "raw", verify=True)["fingerprint"] for name in "abc")
    assert a == b
    assert a != c


def test_manifest_counts_what_was_written(world: Path, log: pl.DataFrame) -> None:
    manifest = read_manifest(world, "raw")
    assert Simulation(**manifest["config"]) == Simulation()
    assert manifest["rows"] == {"events": log.height, "users": 2000, "items": 1000}
    assert manifest["labels"] == {task: log[task].sum() for task in FUNNEL}
    assert "accidental" not in json.dumps({**manifest, "config": None})


def test_tables_name_every_user_and_item_once(world: Path, log: pl.DataFrame) -> None:
    users, items = (pl.read_parquet(world / f"{name}.parquet") for name in ("users", "items"))
    assert users["user_id"].is_unique().all()
    assert items["item_id"].is_unique().all()
    assert log["user_id"].is_in(users["user_id"].to_list()).all()
    assert log["item_id"].is_in(items["item_id"].to_list()).all()
    assert items["category"].n_unique() == 20
    assert items.select(pl.col("title").str.contains(pl.col("category"), literal=True).all()).item()
    assert items.select((pl.col("tags").list.n_unique() == 3).all()).item()
    for name, table in (("users", users), ("items", items)):
        truth = pl.read_parquet(world / f"truth/{name}.parquet")
        assert truth[f"{name[:-1]}_id"].equals(table[f"{name[:-1]}_id"])


def test_columns_of_the_log(world: Path) -> None:
    assert pl.read_parquet_schema(world / "events/day=2026-01-30/part-0.parquet") == {
        "user_id": pl.String,
        "item_id": pl.String,
        "time_ms": pl.Int64,
        "request_id": pl.Int64,
        "slot": pl.Int8,
        "propensity": pl.Float32,
        **dict.fromkeys(FUNNEL, pl.Int8),
        "dwell_ms": pl.Int32,
    }


def test_pages_are_in_order_of_time_and_share_one_time(log: pl.DataFrame) -> None:
    assert log["time_ms"].is_sorted()
    assert (pl.from_epoch(log["time_ms"], "ms").dt.date() == log["day"]).all()
    assert log["request_id"].to_list() == [row // 10 for row in range(log.height)]
    assert log["slot"].to_list() == [row % 10 for row in range(log.height)]
    pages = log.group_by("request_id").agg(pl.col("time_ms", "user_id").n_unique(), time=pl.col("time_ms").first())
    assert (pages["time_ms"] == 1).all()
    assert (pages["user_id"] == 1).all()
    assert pages["time"].is_unique().all()


def test_funnel_is_nested_and_each_task_has_positives(log: pl.DataFrame) -> None:
    for wider, narrower in pairwise(FUNNEL):
        assert log.filter(pl.col(narrower) > pl.col(wider)).is_empty()
    assert 0.12 < log["click"].mean() < 0.20
    assert log["purchase"].sum() > 300
    assert (log["dwell_ms"].is_not_null() == (log["click"] == 1)).all()
    clicks = log.filter(pl.col("click") == 1)
    kinds = clicks.group_by("accidental", "long_view").agg(pl.col("dwell_ms").median()).sort("dwell_ms")
    assert kinds.select("accidental", "long_view").rows() == [(True, 0), (False, 0), (False, 1)]


def test_every_task_follows_relevance(log: pl.DataFrame) -> None:
    for task in FUNNEL:
        rank = log["relevance"].rank().to_numpy()
        positive = log[task].to_numpy() == 1
        negatives = (~positive).sum()
        auc = (rank[positive].mean() - (positive.sum() + 1) / 2) / negatives
        assert auc > 0.65, task


def test_inverse_propensities_average_to_the_number_of_items(log: pl.DataFrame) -> None:
    inverse = log.group_by("slot").agg((1 / pl.col("propensity").cast(pl.Float64)).alias("p")).sort("slot")["p"].to_list()
    for values in map(np.asarray, inverse):
        assert abs(values.mean() - 1000) < 4.5 * values.std() / len(values) ** 0.5


def test_inverse_propensities_recover_uniform_exposure_of_every_category(world: Path, log: pl.DataFrame) -> None:
    """Weighted by 1 / propensity, a category is shown in proportion to its items, although the policy favours some."""
    items = pl.read_parquet(world / "items.parquet", columns=["item_id", "category"])
    weighted = log.with_columns(inverse=1 / pl.col("propensity").cast(pl.Float64)).join(items, on="item_id")
    counts = items.group_by("category").len("items")
    for category, size in counts.rows():
        value = weighted.select(pl.when(pl.col("category") == category).then("inverse").otherwise(0)).to_series()
        error = value.std() / len(value) ** 0.5
        assert abs(value.mean() - size) < 4.5 * error, category
    shown = weighted.group_by("category").len("shown").join(counts, on="category")
    assert shown.select(pl.corr("shown", "items")).item() < 0.95


def test_propensities_match_the_frequencies_of_one_users_pages(tmp_path: Path) -> None:
    """One user on one day: an item has one propensity per focus, and weighted by its inverse every item counts the same."""
    simulate(Simulation(users=1, items=6, events=60_000, days=1, categories=3, explore_share=0.3), tmp_path / "raw")
    log = pl.read_parquet(tmp_path / "raw/events")
    shares = log.group_by("item_id", "propensity").len()
    assert shares.group_by("item_id").len()["len"].max() <= 3
    by_item = log.group_by("item_id").agg(pl.len(), (1 / pl.col("propensity").cast(pl.Float64)).sum().alias("weight"))
    assert by_item["len"].max() > 1.5 * by_item["len"].min()
    assert by_item["weight"].to_numpy() / log.height == pytest.approx(np.ones(6), abs=0.05)


def test_without_taste_or_focus_the_logged_propensity_is_the_frequency(tmp_path: Path) -> None:
    """One category leaves nothing to choose but popularity: every item has one propensity, its share of the impressions."""
    simulate(Simulation(users=3, items=8, events=80_000, days=2, categories=1), tmp_path / "raw")
    log = pl.read_parquet(tmp_path / "raw/events")
    by_item = log.group_by("item_id").agg(pl.len(), pl.col("propensity").unique())
    assert (by_item["propensity"].list.len() == 1).all()
    propensity = by_item["propensity"].list.first().to_numpy()
    assert propensity.sum() == pytest.approx(1, abs=1e-6)
    assert by_item["len"].to_numpy() / log.height == pytest.approx(propensity, abs=0.008)


def test_clicks_fall_with_the_slot_because_examination_does(log: pl.DataFrame) -> None:
    slots = log.group_by("slot").agg(pl.col("click", "examined", "relevance").mean()).sort("slot")
    assert slots["examined"].to_numpy() == pytest.approx(1 / np.sqrt(np.arange(1, 11)), abs=0.015)
    assert (slots["click"].diff().drop_nulls().head(4) < 0).all()
    assert slots["click"][0] > 2 * slots["click"][9]
    assert slots["relevance"].max() < 1.05 * slots["relevance"].min()  # position moves attention only


def test_accidental_clicks_have_the_asked_share_and_only_truth_knows(log: pl.DataFrame, world: Path) -> None:
    assert log["accidental"].sum() / log["click"].sum() == pytest.approx(0.05, abs=0.006)
    assert log.filter(
        pl.col("accidental") & ((pl.col("click") == 0) | ~pl.col("examined") | (pl.col("long_view") == 1))
    ).is_empty()
    assert set(pl.read_parquet(world / "events", hive_partitioning=False).columns).isdisjoint(
        pl.read_parquet(world / "truth/events", hive_partitioning=False).columns
    )


def test_truth_is_aligned_with_events(log: pl.DataFrame, world: Path) -> None:
    """Recompute the relevance of the first day from the latent vectors: exact up to the hidden focus, which adds 1."""
    names = {path.relative_to(world / "events") for path in (world / "events").rglob("*.parquet")}
    assert names == {path.relative_to(world / "truth/events") for path in (world / "truth/events").rglob("*.parquet")}
    assert (log["day"] == log["truth_day"]).all()
    users, items = (pl.read_parquet(world / f"truth/{name}.parquet") for name in ("users", "items"))
    first = log.filter(pl.col("day") == date(2026, 1, 1)).join(users, on="user_id", maintain_order="left")
    first = first.join(items, on="item_id", maintain_order="left", suffix="_item")
    taste_ND, latent_ND = (np.array(first[name].to_list()) for name in ("latent_first_day", "latent"))
    logit_N = (taste_ND * latent_ND).sum(axis=1) / 4 + (first["bias_click"] + first["bias_click_item"]).to_numpy()
    relevance_N = first["relevance"].to_numpy()
    offset_N = np.log(relevance_N / (1 - relevance_N)) - logit_N
    low = offset_N.min()
    assert np.all((np.abs(offset_N - low) < 1e-3) | (np.abs(offset_N - low - 1) < 1e-3))


@pytest.mark.parametrize(("drift", "expected"), [(0.0, 1.0), (0.03, 0.97**29), (0.2, 0.8**29)])
def test_tastes_drift_at_the_asked_rate(tmp_path: Path, drift: float, expected: float) -> None:
    simulate(Simulation(events=20_000, drift=drift), tmp_path / "raw")
    users = pl.read_parquet(tmp_path / "raw/truth/users.parquet")
    first, last = (np.array(users[f"latent_{day}_day"].to_list()) for day in ("first", "last"))
    country = pl.read_parquet(tmp_path / "raw/users.parquet")["country"].rank("dense").to_numpy() - 1
    for taste in (first, last):
        taste -= np.array([taste[country == c].mean(axis=0) for c in range(10)])[country]
    assert np.corrcoef(first.ravel(), last.ravel())[0, 1] == pytest.approx(expected, abs=0.02)


def test_the_last_clicked_category_predicts_the_next(world: Path, log: pl.DataFrame) -> None:
    items = pl.read_parquet(world / "items.parquet", columns=["item_id", "category"])
    clicks = (
        log.filter(pl.col("click") == 1).join(items, on="item_id", maintain_order="left").sort("user_id", "request_id", "slot")
    )
    pairs = clicks.select("category", before=pl.col("category").shift(1).over("user_id")).drop_nulls()
    base = (pairs["category"].value_counts()["count"] / pairs.height).pow(2).sum()
    assert (pairs["category"] == pairs["before"]).mean() > 2 * base


def test_part_files_cover_a_big_day_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.simulate.days.CHUNK_IMPRESSIONS", 120)
    seen: list[tuple[int, int]] = []
    simulate(Simulation(**SMALL), tmp_path / "raw", progress=lambda done, total: seen.append((done, total)))
    assert len(list((tmp_path / "raw/events/day=2026-01-01").iterdir())) == 9
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (4000, 4000)
    log = pl.read_parquet(tmp_path / "raw/events")
    assert log["request_id"].to_list() == [row // 10 for row in range(4000)]
    assert log["time_ms"].is_sorted()


@pytest.mark.parametrize("settings", [{"slots": 1, "events": 2000}, {"slots": 7, "events": 3999}, {"categories": 100}])
def test_odd_sizes(tmp_path: Path, settings: dict[str, Any]) -> None:
    spec = Simulation(**{**SMALL, **settings})
    simulate(spec, tmp_path / "raw")
    assert pl.read_parquet(tmp_path / "raw/events").height == spec.events // spec.slots * spec.slots


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(Simulation(**SMALL), tmp_path / "raw", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"categories": 1001}, "categories=1001 .* items=1000"),
        ({"events": 19_999}, "events=19999 is too few"),
        ({"users": 1, "events": 10**9, "days": 1}, "events=1000000000 in days=1"),
        ({"accidental_share": 0.6}, "accidental_share"),
        ({"explore_share": -0.1}, "explore_share"),
        ({"usrs": 5}, "usrs"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulation(**settings)
