"""Coat as a raw folder: self-selected ratings to train and validate, uniformly random ones to test."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import InputError

VALID_SHARE, SLICE_SHARE, SPLIT_SEED = 0.2, 0.05, 0
FILES = ("train", "test", "user_features", "item_features")
DATA: dict[str, Any] = {
    "events": {
        "path": "log", "user": "user_id", "item": "item_id", "history": "rating >= 3", "labels": {"like": "rating >= 3"},
    },
    "users": {
        "path": "users.parquet", "id": "user_id",
        "features": {"user_gender": "gender", "age": "age", "location": "location", "interest": "fashioninterest"},
    },
    "items": {
        "path": "items.parquet", "id": "item_id",
        "features": {"gender": "gender", "jacket": "jackettype", "color": "color", "front_page": "onfrontpage"},
    },
    "split": {"kind": "files", "valid": "*valid*", "test": "*test*"},
}  # fmt: skip


def write(source: Path, folder: Path) -> float:
    """P(like) of a slice of the random ratings, which is then in no file: what estimates a propensity may judge nobody.

    The rows come shuffled, since coat's are sorted by item and the order of rows is that of time.
    """
    for name in FILES:
        if not (source / f"{name}.parquet").is_file():
            raise InputError(f"{source} holds no {name}.parquet: --data names the folder of the coat data set")
    rng = np.random.default_rng(SPLIT_SEED)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    train, test = (
        pl.read_parquet(source / f"{name}.parquet").rename({"user": "user_id", "item": "item_id"}) for name in ("train", "test")
    )
    train, test = train[rng.permutation(len(train))], test[rng.permutation(len(test))]
    held, cut = round(VALID_SHARE * len(train)), round(SLICE_SHARE * len(test))
    for name, rows in {"train": train[held:], "valid": train[:held], "test": test[cut:]}.items():
        rows.write_parquet(folder / "log" / f"{name}.parquet")
    for name in ("user", "item"):
        _categories(pl.read_parquet(source / f"{name}_features.parquet"), f"{name}_id").write_parquet(
            folder / f"{name}s.parquet"
        )
    return float((test[:cut]["rating"] >= 3).mean())  # type: ignore[arg-type]


def _categories(table: pl.DataFrame, key: str) -> pl.DataFrame:
    """A column of 0 and 1 for each value, named NUMBER_FEATURE:VALUE, -> one column of values for each feature."""
    values: dict[str, list[pl.Expr]] = {}
    for column in table.columns:
        name, value = column.split("_", 1)[1].split(":")
        values.setdefault(name, []).append(pl.when(pl.col(column) == 1).then(pl.lit(value)))
    return table.with_row_index(key).select(key, *(pl.coalesce(each).alias(name) for name, each in values.items()))
