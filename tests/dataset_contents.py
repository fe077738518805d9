"""What a dataset holds, to be compared bit for bit whatever the number of its files."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from recsys.columns import ITEMS_FILE, USERS_FILE, VOCABULARIES_FILE
from recsys.dataset import Dataset


def contents(folder: Path) -> dict[str, pl.DataFrame]:
    """The merged timelines, the sorted examples, both tables, the vocabularies and the quarantine."""
    data = Dataset(folder)
    timeline = {"user": np.repeat(np.arange(data.num_users), data.length_U), "item": data.item_E, "time_ms": data.time_ms_E}
    examples = bits(pl.DataFrame({name: np.asarray(column) for name, column in data.examples.items()}))
    found = {
        "timeline": pl.DataFrame(timeline),
        "examples": examples.sort(examples.columns),
        "users": pl.read_ipc(folder / USERS_FILE),
        "items": pl.read_ipc(folder / ITEMS_FILE),
    }
    if (folder / VOCABULARIES_FILE).exists():
        found["vocabularies"] = pl.read_parquet(folder / VOCABULARIES_FILE).sort("owner", "feature", "code")
    if (folder / "quarantine").exists():
        rows = [bits(pl.read_parquet(path)) for path in sorted((folder / "quarantine").glob("events*.parquet"))]
        found |= {"quarantine": pl.concat(rows, how="diagonal").sort("source_file", "source_row")} if rows else {}
    return found


def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the content, and not of files and moments of making.

    An append looks for repeated pairs among its own rows only: those of all timelines would cost more than the append.
    """
    other = ("built", "events_of_repeated_pairs", "share_of_repeated_pairs")
    report = {name: value for name, value in manifest["report"].items() if name not in other}
    return {name: manifest[name] for name in ("content", "features", "units", "newest_ms", "cuts_ms")} | report


def bits(frame: pl.DataFrame) -> pl.DataFrame:
    """Floats as whole numbers of the same bits: a NaN equals itself, and 0 differs from -0."""
    floats = [column for column in frame if column.dtype == pl.Float32]
    return frame.with_columns(pl.Series(column.name, column.to_numpy().view(np.uint32)) for column in floats)


def assert_same(found: Path, expected: Path) -> None:
    """Both datasets hold the same, dense ids and codes included."""
    left, right = contents(found), contents(expected)
    assert list(left) == list(right)
    for name, frame in left.items():
        assert_frame_equal(frame, right[name], check_exact=True)
    left_facts, right_facts = (facts(Dataset(folder).manifest) for folder in (found, expected))
    assert left_facts == right_facts
