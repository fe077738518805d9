"""Read a dataset's files slice by slice: memory for one slice, whatever the size of the dataset.

A slice is a dict of arrays of equal length.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.columns import ITEM, LENGTH, SPLIT, START, TIME_MS, TRAIN_LENGTH, USER, USERS_FILE, VALID_LENGTH
from recsys.dataset import map_file, numbers

PLACE = "place"  # of an event in its user's timeline
ROWS = 2_000_000

Slice = dict[str, np.ndarray]


def segment_files(folder: Path, manifest: dict[str, Any], kind: str, suffix: str = ".arrow") -> list[pa.Table]:
    return [map_file(folder / kind / f"{name}{suffix}") for name in manifest["segments"][kind]]


def timeline_slices(folder: Path, manifest: dict[str, Any], *, rows: int = ROWS) -> Iterator[Slice]:
    """Every timeline event once, in the order of the merged timeline: `user`, `item`, `time_ms`, `place` and `split`.

    A slice holds whole users, so it is longer than `rows` by at most one user.
    """
    users = map_file(folder / USERS_FILE)
    start, length, train, valid = (numbers(users, name) for name in (START, LENGTH, TRAIN_LENGTH, VALID_LENGTH))
    segments = segment_files(folder, manifest, "timeline")
    cuts = np.unique([*np.searchsorted(start, np.arange(0, length.sum(), rows)), len(start)])
    for first, last in pairwise(cuts.tolist()):
        part = _users_of(segments, first, last)
        user = part[USER]
        rank = np.arange(len(user)) - (start[user] - start[first])
        after_train = rank - train[user]
        yield part | {PLACE: rank, SPLIT: (after_train >= 0).astype(np.int8) + (after_train >= valid[user])}


def _users_of(segments: Sequence[pa.Table], first: int, last: int) -> Slice:
    """The events of users `first` to `last` - 1, a user's events of one segment after those of the segments before it."""
    parts = []
    for segment in segments:
        low, high = np.searchsorted(numbers(segment, USER), [first, last])
        if high > low:
            parts.append({name: numbers(segment, name)[low:high] for name in (USER, ITEM, TIME_MS)})
    if len(parts) == 1:
        return parts[0]
    merged = {name: np.concatenate([np.zeros(0, np.int64), *[part[name] for part in parts]]) for name in (USER, ITEM, TIME_MS)}
    order = np.argsort(merged[USER], kind="stable")
    return {name: values[order] for name, values in merged.items()}


def rows_of_users(tables: Sequence[pa.Table], names: Sequence[str], users: np.ndarray) -> Slice:
    """The rows of `users`, in ascending order, out of tables sorted by `user`: table after table."""
    parts = []
    for table in tables:
        owner = numbers(table, USER)
        low, high = np.searchsorted(owner, users), np.searchsorted(owner, users, side="right")
        length = high - low
        rows = np.arange(length.sum()) + np.repeat(low - np.cumsum(length) + length, length)
        parts.append({name: numbers(table, name)[rows] for name in names})
    return {name: np.concatenate([part[name] for part in parts]) if parts else np.zeros(0, np.int64) for name in names}


def rows_per_user(tables: Sequence[pa.Table], num_users: int, *, rows: int = ROWS) -> np.ndarray:
    counts = np.zeros(num_users, np.int64)
    for user in (numbers(table, USER) for table in tables):
        for begin in range(0, len(user), rows):
            assert (np.diff(user[begin : begin + rows]) >= 0).all(), "a file is not sorted by user"
            counts += np.bincount(user[begin : begin + rows], minlength=num_users)
    return counts


def example_slices(
    folder: Path, manifest: dict[str, Any], names: Sequence[str] | None = None, *, rows: int = ROWS
) -> Iterator[Slice]:
    """Every example once, in the dataset's order: the columns `names`, or all, and `split`."""
    tables, splits = (segment_files(folder, manifest, "examples", suffix) for suffix in (".arrow", ".split.arrow"))
    for table, split in zip(tables, splits, strict=True):
        columns = {name: numbers(table, name) for name in names or table.column_names} | {SPLIT: numbers(split, SPLIT)}
        for begin in range(0, len(table), rows):
            yield {name: values[begin : begin + rows] for name, values in columns.items()}


def pair_key(part: Slice) -> np.ndarray:
    """One number for the user and the item of a row."""
    return part[USER].astype(np.int64) << 32 | part[ITEM]
