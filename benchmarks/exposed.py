"""The simulated world with a page order that matters: popular items stand above others, so their place brings them clicks, too.

The log is that of `recsys.simulate`, with each page sorted by popularity and luck, and clicks drawn anew from the world's true
relevance and the place. The test is another log of the same world and days, whose pages are filled evenly at random.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import ITEM, TEST, TIME_MS, USER
from recsys.dataset import Dataset
from recsys.simulate import Simulation, simulate

WORLD: dict[str, Any] = {
    "users": 200, "items": 100, "days": 10, "categories": 8, "seed": 7, "drift": 0.0, "accidental_share": 0.0,
}  # fmt: skip
EVENTS, TEST_EVENTS = 40_000, 40_000
KEY, TRUTH = ["user_id", "item_id", "time_ms"], "truth.parquet"
VALID_DAYS, TEST_DAYS = 1, 2  # the last ones
DECAY = 0.7  # slot s is looked at with chance (s + 1) ** -DECAY
LUCK = 0.5  # spread of what is added to the logarithm of an item's rows before a page is sorted
DATA: dict[str, Any] = {
    "events": {
        "path": "log", "user": "user_id", "item": "item_id", "time": "time_ms", "time_unit": "ms", "history": "click = 1",
        "labels": {"click": "click"}, "propensity": "propensity", "slot": "slot",
        "ties": "simultaneous",
    },
    "users": {"path": "users.parquet", "id": "user_id", "features": {"country": "country", "age_group": "age_group"}},
    "items": {"path": "items.parquet", "id": "item_id", "features": {"category": "category", "brand": "brand", "tags": "tags"}},
    "split": {"kind": "files", "valid": "*valid*", "test": "*test*"},
}  # fmt: skip


def write(folder: Path) -> None:
    """The raw folder: log/{train,valid,test}.parquet, users and items; and beside them the truth about the test's rows."""
    logged, even = folder / "logged", folder / "even"
    simulate(Simulation(**WORLD, events=EVENTS, explore_share=0.1), logged)
    simulate(Simulation(**WORLD, events=TEST_EVENTS, explore_share=1.0), even)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    days, log, test = WORLD["days"], _rows(logged), _rows(even)
    log = _sorted_pages(log, np.random.default_rng(WORLD["seed"]))
    first_valid = days - TEST_DAYS - VALID_DAYS
    parts = {
        "train": log.filter(pl.col("day") < first_valid),
        "valid": log.filter(pl.col("day").is_between(first_valid, days - TEST_DAYS, closed="left")),
        "test": test.filter(pl.col("day") >= days - TEST_DAYS),
    }
    for name, rows in parts.items():
        rows.drop("day", "relevance").write_parquet(folder / "log" / f"{name}.parquet")
    parts["test"].select(*KEY, "relevance").unique(KEY).write_parquet(folder / TRUTH)
    for name in ("users", "items"):
        (folder / f"{name}.parquet").write_bytes((logged / f"{name}.parquet").read_bytes())


def relevance(folder: Path, dataset: Dataset) -> np.ndarray:
    """relevance_N of the test's examples."""
    row_N = dataset.example_rows(TEST)
    ids = {"user_id": (dataset.user_ids, USER), "item_id": (dataset.item_ids, ITEM)}
    columns = {name: np.array(known)[dataset.examples[column][row_N]] for name, (known, column) in ids.items()}
    rows = pl.DataFrame({**columns, "time_ms": dataset.examples[TIME_MS][row_N]}, schema_overrides={"time_ms": pl.Int64})
    found = rows.join(pl.read_parquet(folder / TRUTH), on=KEY, how="left", maintain_order="left")["relevance"]
    assert not found.null_count()
    return found.cast(pl.Float64).to_numpy()


def _rows(world: Path) -> pl.DataFrame:
    """Impressions with the truth about them, day after day."""
    files = sorted((world / "events").rglob("*.parquet"))
    truths = [world / "truth" / file.relative_to(world) for file in files]
    rows = [
        pl.concat([pl.read_parquet(file), pl.read_parquet(truth)], how="horizontal").with_columns(path=pl.lit(file.parent.name))
        for file, truth in zip(files, truths, strict=True)
    ]
    day = pl.col("path").rank("dense").cast(pl.Int64) - 1
    columns = ["user_id", "item_id", "time_ms", "request_id", "slot", "propensity", "click", "relevance", "day"]
    return pl.concat(rows).with_columns(day=day).select(columns)


def _sorted_pages(log: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The same items on each page in another order, and new clicks."""
    standing = log.select(pl.len().over("item_id").log()).to_series().to_numpy() + rng.normal(0, LUCK, len(log))
    place = pl.col("standing").rank("ordinal", descending=True).over("request_id").cast(pl.Int8) - 1
    log = log.with_columns(standing=standing).with_columns(slot=place).drop("standing")
    looked = rng.random(len(log)) < (log["slot"].to_numpy() + 1.0) ** -DECAY
    return log.with_columns(click=pl.Series(looked & (rng.random(len(log)) < log["relevance"].to_numpy())).cast(pl.Int8))
