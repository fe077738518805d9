"""Small catalogues with texts, for the tests of semantic ids."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from planted_data import write_dataset

from recsys.columns import FIRST_ID, ITEMS_FILE, UNKNOWN_ID, VOCABULARIES_FILE
from recsys.dataset import Dataset
from recsys.generate.items import Items

GROUPS, EACH = 6, 8  # of the planted catalogue
SUBJECTS = ("garden hose", "ink printer", "espresso machine", "running shoes", "violin strings", "chess board")


def catalogue(
    folder: Path,
    titles: Sequence[str | None] | None = None,
    features: Mapping[str, Sequence[Any]] | None = None,
    items: int = 0,
) -> Dataset:
    """A dataset of items with titles and features: a value each, a list of values each, or None where it is unknown."""
    features = features or {}
    items = items or len(titles or next(iter(features.values())))
    coded, rows = {}, []
    for name, values in features.items():
        lists = any(isinstance(value, list) for value in values)
        known = sorted(
            {each for value in values if value is not None for each in (value if isinstance(value, list) else [value])}
        )
        code = {each: place for place, each in enumerate(known, FIRST_ID)}
        rows += [{"owner": "item", "feature": name, "code": code[each], "value": each} for each in known]
        coded[name] = ("item", [_codes(None, code, lists)] * FIRST_ID + [_codes(value, code, lists) for value in values])
    data = write_dataset(folder, [list(range(FIRST_ID, FIRST_ID + min(items, 6)))], num_items=items + FIRST_ID, features=coded)
    if titles is not None:
        table = pl.read_ipc(io.BytesIO((folder / ITEMS_FILE).read_bytes()))  # no map of the file that is written anew
        titled = table.with_columns(pl.Series("title", [None] * FIRST_ID + list(titles), pl.String))
        titled.rechunk().write_ipc(folder / ITEMS_FILE, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    if rows:
        pl.DataFrame(rows).write_parquet(folder / VOCABULARIES_FILE)
    return Dataset(data.folder)


def planted_titles(seed: int = 0) -> list[str]:
    """GROUPS subjects in turn, EACH items of each, told apart by a word of their own."""
    rng = np.random.default_rng(seed)
    return [f"{SUBJECTS[item % GROUPS]} model {rng.integers(10**6)}" for item in range(GROUPS * EACH)]


def planted_vectors(seed: int = 0, width: int = 8) -> np.ndarray:
    """vector_ID: items of one group lie close together; the reserved rows are zero."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((GROUPS, width)) * 3
    vector = np.concatenate([np.zeros((FIRST_ID, width)), centre[np.arange(GROUPS * EACH) % GROUPS]])
    vector[FIRST_ID:] += rng.standard_normal((GROUPS * EACH, width)) * 0.3
    return vector.astype(np.float32)


def planted_items(folder: Path, **more: Any) -> Items:
    return Items(catalogue(folder, planted_titles(), **more), planted_vectors)


def _codes(value: Any, code: Mapping[str, int], lists: bool) -> Any:
    if lists:
        return [UNKNOWN_ID] if value is None else [code[each] for each in value]
    return UNKNOWN_ID if value is None else code[value]
