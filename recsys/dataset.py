"""Read a dataset by memory map: numpy views of Arrow files, copied only where a column lies in several files.

Needs pyarrow and numpy only.
Shapes: E = timeline events of all users, in user then time order; U, I = rows of the user and item tables; X = examples.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from recsys.artefact import read_manifest
from recsys.columns import (
    ASOF_PREFIX,
    EXAMPLES,
    FIRST_ID,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    LENGTH,
    SPLIT,
    START,
    TEST,
    TIME_MS,
    TIMELINE,
    TRAIN,
    TRAIN_COUNT,
    TRAIN_LENGTH,
    USER,
    USER_ID,
    USERS_FILE,
    VALID,
    VALID_LENGTH,
    VOCABULARIES_FILE,
    examples_file,
    feature,
    split_file,
    timeline_file,
)
from recsys.jagged import Jagged
from recsys.segments import Column, merged


class Dataset:
    """A dataset artefact. Raises InputError where the folder holds none, or one of another format."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest: dict[str, Any] = read_manifest(folder, "dataset")
        self._users, self._items = map_file(folder / USERS_FILE), map_file(folder / ITEMS_FILE)
        self.start_U, self.length_U, self.train_length_U, self.valid_length_U = (
            numbers(self._users, name) for name in (START, LENGTH, TRAIN_LENGTH, VALID_LENGTH)
        )
        self.train_count_I = numbers(self._items, TRAIN_COUNT)

    @property
    def tasks(self) -> list[str]:
        return list(self.manifest["tasks"])

    @property
    def context(self) -> list[str]:
        return list(self.manifest["context"])

    @property
    def features(self) -> list[dict[str, Any]]:
        """Name, owner (user, item or context), size and multi_valued of every categorical feature."""
        return list(self.manifest["features"])

    @property
    def dense(self) -> list[str]:
        """The point-in-time features of an example: columns `feature_NAME` of the examples."""
        return list(self.manifest["dense"])

    @property
    def asof(self) -> list[str]:
        """User and item features whose code as of the example stands in `asof_NAME` of the examples."""
        return [name.removeprefix(ASOF_PREFIX) for name in self.examples if name.startswith(ASOF_PREFIX)]

    @property
    def has_time(self) -> bool:
        """Whether times are moments of the calendar; else they are places in the log."""
        return bool(self.manifest["has_time"])

    @property
    def num_users(self) -> int:
        return len(self.start_U)

    @property
    def num_items(self) -> int:
        return len(self.train_count_I)

    @property
    def cold_users(self) -> np.ndarray:
        """True for a user without training events. The reserved rows are nobody, and False."""
        return (self.train_length_U == 0) & (np.arange(self.num_users) >= FIRST_ID)

    @property
    def cold_items(self) -> np.ndarray:
        """True for an item without training events. The reserved rows are nothing, and False."""
        return (self.train_count_I == 0) & (np.arange(self.num_items) >= FIRST_ID)

    @cached_property
    def item_E(self) -> np.ndarray:
        return self._timeline(ITEM)

    @cached_property
    def time_ms_E(self) -> np.ndarray:
        return self._timeline(TIME_MS)

    @property
    def timelines(self) -> Jagged:
        """Every user's timeline, row = dense user id."""
        return Jagged(self.item_E, np.concatenate([self.start_U, self.start_U[-1:] + self.length_U[-1:]]))

    def events(self, split: int) -> tuple[np.ndarray, np.ndarray]:
        """First row and number of each user's timeline events in a split; what comes before them is their history."""
        valid_U = self.start_U + self.train_length_U
        test_U = valid_U + self.valid_length_U
        return {
            TRAIN: (self.start_U, self.train_length_U),
            VALID: (valid_U, self.valid_length_U),
            TEST: (test_U, self.start_U + self.length_U - test_U),
        }[split]

    @cached_property
    def examples(self) -> Mapping[str, np.ndarray | Column]:
        """Every column of the examples, `split` included; none where there are no files of them."""
        columns: dict[str, list[np.ndarray]] = {}
        for segment in self.manifest["segments"][EXAMPLES]:
            for name in (examples_file(segment), split_file(segment)):
                table = map_file(self.folder / name)
                for column in table.column_names:
                    columns.setdefault(column, []).append(numbers(table, column))
        return {name: parts[0] if len(parts) == 1 else Column(parts) for name, parts in columns.items()}

    def example_rows(self, split: int) -> np.ndarray:
        """The examples of a split, as row numbers in ascending order."""
        if SPLIT not in self.examples:
            return np.empty(0, np.int64)
        found = np.flatnonzero(self.examples[SPLIT] == split)
        return found.astype(np.int32) if len(self.examples[SPLIT]) < 2**31 else found

    @cached_property
    def item_ids(self) -> list[str | None]:
        return self._items.column(ITEM_ID).to_pylist()

    @cached_property
    def user_ids(self) -> list[str | None]:
        return self._users.column(USER_ID).to_pylist()

    def vocabulary(self, owner: str, feature: str) -> list[str]:
        """The values of a feature in the order of their codes, the first one having code FIRST_ID."""
        path = self.folder / VOCABULARIES_FILE
        if not path.is_file():
            return []
        chosen = (pc.field("owner") == owner) & (pc.field("feature") == feature)
        table = parquet.read_table(path, filters=chosen).sort_by("code")
        return [str(value) for value in table.column("value").to_pylist()]

    def codes(self, name: str, owner: str) -> Jagged:
        """A user or item feature of every row; a row without attributes holds the unknown code."""
        column = (self._users if owner == "user" else self._items).column(feature(name)).chunk(0)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            return Jagged(column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64))
        return Jagged(column.to_numpy(), np.arange(len(column) + 1))

    def _timeline(self, name: str) -> np.ndarray:
        """A column of the timeline, user after user: the mapped file itself, or the merged segments."""
        tables = [map_file(self.folder / timeline_file(segment)) for segment in self.manifest["segments"][TIMELINE]]
        if len(tables) == 1:
            return numbers(tables[0], name)
        return merged([(numbers(table, USER), numbers(table, name)) for table in tables], self.start_U)


def map_file(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column without nulls; a view of the file where it has one record batch."""
    column = table.column(name)
    return column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()  # a file without rows may have no chunk
