"""Small raw logs, written as files and prepared as a user would."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data import Data
from recsys.data.build import build
from recsys.dataset import Dataset

T0 = 1_700_000_000  # seconds; small times in a test are added to it


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.fixture
def write(raw: Path) -> Callable[[str, str | bytes | pl.DataFrame], Path]:
    """Write a raw file."""

    def write(name: str, content: str | bytes | pl.DataFrame) -> Path:
        path = raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def prepare(raw: Path, tmp_path: Path) -> Callable[..., Dataset]:
    """Prepare the raw files with `events` and the other parts of the `data` section; returns the dataset."""

    def prepare(events: dict[str, Any], **parts: Any) -> Dataset:
        out = tmp_path / "dataset"
        build(Data.model_validate({"events": events, **parts}), raw, out)
        return Dataset(out)

    return prepare


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of a real data set, beside the checkout or under $RECSYS_DATA; skips the test where there is none."""
    root = Path(os.environ.get("RECSYS_DATA") or Path(__file__).parents[3] / "shared" / "data")

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no {name} in {root}: set RECSYS_DATA to the folder of the real data sets")
        return root / name

    return folder


@pytest.fixture(scope="session")
def examples_of() -> Callable[[Dataset], pl.DataFrame]:
    return examples_frame


def examples_frame(data: Dataset) -> pl.DataFrame:
    """Every example with external ids and its history as external ids, in the dataset's order."""
    items = data.item_ids
    rows = pl.DataFrame({name: np.asarray(column) for name, column in data.examples.items()})
    history = [
        [items[i] for i in data.item_E[data.start_U[user] : data.start_U[user] + position]]
        for user, position in rows.select("user", "position").iter_rows()
    ]
    return rows.with_columns(
        pl.Series("user", [data.user_ids[u] for u in rows["user"]], dtype=pl.String),
        pl.Series("item", [items[i] for i in rows["item"]], dtype=pl.String),
        pl.Series("history", history, dtype=pl.List(pl.String)),
    )
