"""Hashes of what a dataset says, the same for any numbering of ids and codes, order of rows and layout of files.

A row is a `KEY`, which names it by external ids and time, and values, all as 64-bit hashes. They are comparable within one
version of Polars.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artefact import read_manifest
from recsys.columns import (
    ASOF_PREFIX,
    CONTEXT_PREFIX,
    FEATURE_PREFIX,
    FIRST_ID,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    SPLIT,
    TIME_MS,
    TRAIN_LENGTH,
    USER,
    USER_ID,
    USERS_FILE,
    VALID_LENGTH,
    VOCABULARIES_FILE,
)
from recsys.data.slices import Slice, rows_of_users, rows_per_user, segment_files
from recsys.dataset import map_file, numbers

KEY = "key"
EVENT_PARTS = ("timeline", "examples")
TABLE_PARTS = ("users", "items")
EVENT = (USER, ITEM, TIME_MS)
TITLE = "title"
RANK = "rank"  # timeline events of the user before the row


class Content:
    """A dataset as rows of hashes. Raises InputError where the folder holds none. Event files are sorted by user."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest: dict[str, Any] = read_manifest(folder, "dataset")
        self.tables = {"users": map_file(folder / USERS_FILE), "items": map_file(folder / ITEMS_FILE)}
        splits = segment_files(folder, self.manifest, "examples", ".split.arrow")
        examples = segment_files(folder, self.manifest, "examples")
        self.files = {
            "timeline": segment_files(folder, self.manifest, "timeline"),
            "examples": [file.append_column(SPLIT, split[SPLIT]) for file, split in zip(examples, splits, strict=True)],
        }
        self.ids = {
            part: pl.Series(self.tables[part].column(name)) for part, name in zip(TABLE_PARTS, (USER_ID, ITEM_ID), strict=True)
        }

    def columns(self, part: str) -> list[str]:
        """The columns of a part that say something of their own, beside its key."""
        if part == "timeline":
            return [SPLIT, RANK]
        if part == "examples":
            return [name for table in self.files[part][:1] for name in table.column_names if name not in EVENT]
        return [name for name in self.tables[part].column_names if name.startswith(FEATURE_PREFIX) or name == TITLE]

    def rows_per_user(self, part: str) -> np.ndarray:
        return rows_per_user(self.files[part], len(self.ids["users"]))

    def table(self, part: str, columns: list[str]) -> Slice:
        """`KEY` and the hashes of `columns` of every user or item."""
        return {KEY: self._id_hash[part][FIRST_ID:]} | {name: self._table_hash(part, name)[FIRST_ID:] for name in columns}

    def events(self, part: str, columns: list[str], users: np.ndarray) -> Slice:
        """`KEY` and the hashes of `columns` of the events or examples of `users`, dense ids in ascending order."""
        rows = rows_of_users(self.files[part], EVENT if part == "timeline" else [*EVENT, *columns], users)
        if part == "timeline":
            rows |= self._places(rows[USER])
        event = mix(self._id_hash["items"][rows[ITEM]], _bits(rows[TIME_MS]))
        return {KEY: mix(self._id_hash["users"][rows[USER]], event)} | {
            name: self._value_hash(name, rows[name]) for name in columns
        }

    def _places(self, user: np.ndarray) -> Slice:
        """The rank of events in their user's timeline, which runs over all segments, and so their split."""
        order = np.argsort(user, kind="stable")
        in_order = user[order]
        rank = np.empty(len(user), np.int64)
        rank[order] = np.arange(len(user)) - np.searchsorted(in_order, in_order)
        train, valid = (numbers(self.tables["users"], name)[user] for name in (TRAIN_LENGTH, VALID_LENGTH))
        return {RANK: rank, SPLIT: (rank >= train).astype(np.int8) + (rank >= train + valid)}

    @cached_property
    def _id_hash(self) -> dict[str, np.ndarray]:
        return {part: ids.hash().to_numpy() for part, ids in self.ids.items()}

    @cached_property
    def _code_hash(self) -> dict[tuple[str, str], np.ndarray]:
        """(owner, feature) -> hash of the value behind each code."""
        path = self.folder / VOCABULARIES_FILE
        if not path.is_file():
            return {}
        reserved = np.arange(FIRST_ID, dtype=np.uint64)
        groups = pl.read_parquet(path).sort("code").group_by("owner", "feature", maintain_order=True)
        return {(str(owner), str(name)): np.append(reserved, rows["value"].hash().to_numpy()) for (owner, name), rows in groups}

    def _value_hash(self, name: str, values: np.ndarray) -> np.ndarray:
        if name.startswith(CONTEXT_PREFIX):
            return self._decoded("context", name.removeprefix(CONTEXT_PREFIX), values)
        if name.startswith(ASOF_PREFIX):
            feature = name.removeprefix(ASOF_PREFIX)
            return self._decoded(USER if (USER, feature) in self._code_hash else ITEM, feature, values)
        return _bits(values)

    def _decoded(self, owner: str, feature: str, codes: np.ndarray) -> np.ndarray:
        return self._code_hash.get((owner, feature), np.arange(FIRST_ID, dtype=np.uint64))[codes]

    def _table_hash(self, part: str, name: str) -> np.ndarray:
        column = pl.Series(self.tables[part].column(name))
        if name == TITLE:
            return column.hash().to_numpy()
        owner, feature = part.removesuffix("s"), name.removeprefix(FEATURE_PREFIX)
        if not isinstance(column.dtype, pl.List):
            return self._decoded(owner, feature, column.to_numpy())
        elements = mix(self._decoded(owner, feature, column.explode(empty_as_null=False).to_numpy()), np.uint64(0))
        ends = np.cumsum(column.list.len().to_numpy().astype(np.int64))
        totals = np.append(np.uint64(0), np.cumsum(elements))  # a sum does not depend on the order in a list; it wraps around
        return totals[ends] - totals[np.append(0, ends[:-1])]


def mix(left: np.ndarray, right: np.ndarray | np.uint64) -> np.ndarray:
    """One hash of two, with the finaliser of SplitMix64 (Steele et al. 2014, https://doi.org/10.1145/2714064.2660195)."""
    mixed = left * np.uint64(0x9E3779B97F4A7C15) + right
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _bits(values: np.ndarray) -> np.ndarray:
    """Numbers as 64-bit patterns; every NaN has one, and so have 0 and -0."""
    if values.dtype.kind == "f":
        values = (np.where(np.isnan(values), np.float32(np.nan), values) + np.float32(0)).astype(np.float32).view(np.uint32)
    return values.astype(np.int64).view(np.uint64)
