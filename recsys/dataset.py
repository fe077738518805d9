"""Read a dataset by memory map: numpy views of Arrow files, nothing copied. Needs pyarrow and numpy only.

Shapes: E = timeline events of all users, in user then time order; U, I = rows of the user and item tables; X = examples.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from recsys.artefact import read_manifest
from recsys.columns import (
    EXAMPLES_FILE,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    LENGTH,
    SPLIT,
    START,
    TIME_MS,
    TIMELINE_FILE,
    TRAIN_COUNT,
    USER_ID,
    USERS_FILE,
    VOCABULARIES_FILE,
)
from recsys.jagged import Jagged


class Dataset:
    """A dataset artefact. Raises InputError where the folder holds none, or one of another format."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest: dict[str, Any] = read_manifest(folder, "dataset")
        timeline, users, items = (_map(folder / name) for name in (TIMELINE_FILE, USERS_FILE, ITEMS_FILE))
        self.item_E, self.time_ms_E, self.split_E = (_numpy(timeline, name) for name in (ITEM, TIME_MS, SPLIT))
        self.start_U, self.length_U = _numpy(users, START), _numpy(users, LENGTH)
        self.train_count_I = _numpy(items, TRAIN_COUNT)
        self._users, self._items = users, items

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
    def num_users(self) -> int:
        return len(self.start_U)

    @property
    def num_items(self) -> int:
        return len(self.train_count_I)

    @cached_property
    def examples(self) -> dict[str, np.ndarray]:
        table = _map(self.folder / EXAMPLES_FILE)
        return {name: _numpy(table, name) for name in table.column_names}

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

    @property
    def timelines(self) -> Jagged:
        """Every user's timeline, row = dense user id."""
        return Jagged(self.item_E, np.concatenate([self.start_U, self.start_U[-1:] + self.length_U[-1:]]))

    def codes(self, name: str, owner: str) -> Jagged:
        """A user or item feature of every row; a row without attributes holds the unknown code."""
        column = (self._users if owner == "user" else self._items).column(f"feature_{name}").chunk(0)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            return Jagged(column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64))
        return Jagged(column.to_numpy(), np.arange(len(column) + 1))


def _map(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _numpy(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    return column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()  # a file without rows may have no chunk
