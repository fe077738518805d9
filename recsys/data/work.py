"""What the tasks of a build did, for the files that are made of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import (
    FIRST_ID,
    ITEM,
    USER,
)  # fmt: skip
from recsys.data.clean import Tables
from recsys.data.ingest import Ingested
from recsys.data.rules import Broken
from recsys.data.settle import Settled
from recsys.data.shape import Shaped


@dataclass(frozen=True)
class Work:
    """What the tasks did.

    `values` are the distinct values of ids and context features in the order of their dense ids, `places` all of them in the
    order that settled rows use.
    """

    scratch: Path
    places: Mapping[str, pl.Series]
    values: Mapping[str, pl.Series]
    tables: Tables
    ingested: list[Ingested]
    settled: list[Settled]
    shaped: list[Shaped]
    states: list[Path]  # of the point-in-time features, by key
    counts_before: tuple[np.ndarray, np.ndarray]
    rows_dropped: int
    cuts_ms: tuple[int, int] | None
    newest_ms: int
    units: list[str]

    @property
    def num_users(self) -> int:
        return FIRST_ID + len(self.values[USER])

    @property
    def num_items(self) -> int:
        return FIRST_ID + len(self.values[ITEM])


def all_bad(ingested: list[Ingested], settled: list[Settled]) -> Counter[Broken]:
    """The rules that rows broke, and how many rows."""
    counts = Counter[Broken]()
    for bad in [*(found.bad for found in ingested), *(found.bad for found in settled)]:
        counts.update(bad)
    return counts
