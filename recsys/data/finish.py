"""Lay the dataset's files down from what the tasks made, beside those that an append keeps.

Shapes: E = new timeline events, U, I = rows of the user and item tables.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import (
    EXAMPLES,
    FIRST_ID,
    ITEM,
    ITEMS_FILE,
    LENGTH,
    SPLIT,
    SPLIT_NAMES,
    START,
    TIME_MS,
    TIMELINE,
    TRAIN_COUNT,
    TRAIN_LENGTH,
    USER,
    USERS_FILE,
    VALID_LENGTH,
    VOCABULARIES_FILE,
    context,
)  # fmt: skip
from recsys.data import Data
from recsys.data.account import account
from recsys.data.arrow import read_arrow, write_arrow, write_columns
from recsys.data.aside import set_aside
from recsys.data.before import RECENT_FILE, Before, feature_state_file, hash_state_file, link_all, link_file
from recsys.data.identity import content
from recsys.data.ids import hash_file, id_file
from recsys.data.ingest import QUARANTINE
from recsys.data.shape import COUNTS_FILE, Shaped
from recsys.data.tables import Feature
from recsys.data.work import Work
from recsys.errors import InputError

IN_MEMORY = 1 << 25  # timeline events; 16 bytes each


def finish(data: Data, work: Work, before: Before, folder: Path, manifest: dict[str, Any]) -> None:
    """Write all files of the dataset into `folder` and describe them in `manifest`."""
    kept: dict[str, str] = {}  # files linked from the dataset before, with their hashes
    count_US, train_count_I = work.counts_before
    length_before_U = count_US.sum(axis=1)
    for part in work.shaped:
        with np.load(part.out / COUNTS_FILE) as counts:
            count_US[counts["user"]] += counts["count"]
            train_count_I[counts["item"]] += counts["item_count"]
    _check_split(data, count_US)
    length_U = count_US.sum(axis=1)
    segments = {
        TIMELINE: _timeline(work, before, length_U - length_before_U, folder, kept),
        EXAMPLES: _examples(work, before, folder, kept),
    }
    tables = work.tables
    features = [*tables.features, *(Feature(name, "context", work.values[context(name)]) for name in data.events.context)]
    places = {
        START: np.cumsum(length_U) - length_U,
        LENGTH: length_U,
        TRAIN_LENGTH: count_US[:, 0],
        VALID_LENGTH: count_US[:, 1],
    }
    write_arrow(tables.frames[USER].with_columns(**places), folder / USERS_FILE)
    write_arrow(tables.frames[ITEM].with_columns(pl.Series(TRAIN_COUNT, train_count_I)), folder / ITEMS_FILE)
    _vocabularies(features, folder / VOCABULARIES_FILE)
    set_aside(work, before, list(manifest["pieces"]), folder / QUARANTINE, kept)
    _state(data, work, before, folder)
    manifest |= {
        "segments": segments,
        "files": kept,
        "features": [{"name": f.name, "owner": f.owner, "size": f.size, "multi_valued": f.multi_valued} for f in features],
        "asof": [f.name for f in tables.features if f.owner in tables.versions],
        "units": work.units,
        "newest_ms": work.newest_ms,
        "cuts_ms": None if work.cuts_ms is None else list(work.cuts_ms),
        "report": account(data, work, before, count_US) | tables.report,
    }
    manifest["content"] = content(
        before.manifest.get("content"), sum(part.hash_sum for part in work.shaped), sum(part.rows for part in work.shaped)
    )


def counts_before(
    before: Before, num_users: int, num_items: int, cuts_ms: tuple[int, int] | None, scratch: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Of what the dataset had: timeline events by user and split, training events by item, under the cuts as they are now.

    Where the cuts have moved, the split of the examples is written to `scratch`, too.
    """
    train_U, valid_U = (before.count(USER, name, num_users) for name in (TRAIN_LENGTH, VALID_LENGTH))
    count_US = np.stack([train_U, valid_U, before.count(USER, LENGTH, num_users) - train_U - valid_U], axis=1)
    train_count_I = before.count(ITEM, TRAIN_COUNT, num_items)
    if before.folder is not None and cuts_ms is not None:
        for path in before.segments(TIMELINE):
            _move_cuts(read_arrow(path), before.manifest["cuts_ms"], cuts_ms, count_US, train_count_I)
        if list(cuts_ms) != before.manifest["cuts_ms"]:
            for path in before.segments(EXAMPLES):
                time_X = read_arrow(path)[TIME_MS].to_numpy()
                split_X = (time_X >= cuts_ms[0]).view(np.int8)
                split_X += (time_X >= cuts_ms[1]).view(np.int8)
                write_columns({SPLIT: split_X}, scratch / f"{path.stem}.split.arrow")
    return count_US, train_count_I


def _check_split(data: Data, count_US: np.ndarray) -> None:
    """Stop where the dataset would lack a part of the split, also after an append that moved the cuts."""
    by_split = count_US.sum(axis=0)
    empty = [name for name, count in zip(SPLIT_NAMES, by_split, strict=True) if not count]
    if empty:
        raise InputError(
            f"split.kind {data.split.kind} leaves no timeline event to {' and '.join(empty)}: use another split or more data "
            f"({by_split.sum():,} timeline events of {int(count_US.any(axis=1).sum()):,} users)"
        )


def _move_cuts(
    timeline: pl.DataFrame, old_ms: tuple[int, int], new_ms: tuple[int, int], count_US: np.ndarray, train_count_I: np.ndarray
) -> None:
    """Events between an old and a new moment of the split change sides."""
    if tuple(old_ms) == new_ms:
        return
    time_E, user_E, item_E = (timeline[name].to_numpy() for name in (TIME_MS, USER, ITEM))
    near_E = np.flatnonzero(time_E >= min(*old_ms, *new_ms))
    for split, (old, new) in enumerate(zip(old_ms, new_ms, strict=True)):
        moved_E = near_E[(time_E[near_E] >= min(old, new)) & (time_E[near_E] < max(old, new))]
        sign = 1 if new > old else -1
        moved_U = np.bincount(user_E[moved_E], minlength=len(count_US)) * sign
        count_US[:, split] += moved_U
        count_US[:, split + 1] -= moved_U
        if split == 0:
            train_count_I += np.bincount(item_E[moved_E], minlength=len(train_count_I)) * sign


def _timeline(work: Work, before: Before, new_U: np.ndarray, folder: Path, kept: dict[str, str]) -> list[str]:
    """One new file: the shards' events, users ascending."""
    names = link_all(before, TIMELINE, folder, kept)
    start_U, total = np.cumsum(new_U) - new_U, int(new_U.sum())
    types = {USER: np.int32, ITEM: np.int32, TIME_MS: np.int64}
    columns = {name: _array(work.scratch / f"timeline-{name}.npy", total, dtype) for name, dtype in types.items()}

    def lay_down(part: Shaped) -> None:
        events = read_arrow(part.out / "timeline.arrow")
        user_E = events[USER].to_numpy()
        first_E = np.flatnonzero(np.diff(user_E, prepend=-1))
        shift_E = np.repeat(start_U[user_E[first_E]] - first_E, np.diff(first_E, append=len(user_E)))
        place_E = shift_E + np.arange(len(user_E))
        for name, column in columns.items():
            column[place_E] = events[name].to_numpy()

    with ThreadPoolExecutor(2) as threads:  # parts have no row in common
        list(threads.map(lay_down, work.shaped))
    if total or not names:
        names.append(f"{len(names):03d}")
        write_columns(columns, folder / TIMELINE / f"{names[-1]}.arrow")
    return names


def _array(path: Path, size: int, dtype: type) -> np.ndarray:
    """An array to be filled, in a file where it is large, so that memory does not bound it."""
    if size <= IN_MEMORY:
        return np.empty(size, dtype)
    return np.lib.format.open_memmap(path, "w+", dtype, (size,))


def _examples(work: Work, before: Before, folder: Path, kept: dict[str, str]) -> list[str]:
    names = link_all(before, EXAMPLES, folder, kept)
    for name in names:
        moved = work.scratch / f"{name}.split.arrow"
        if moved.exists():
            shutil.move(moved, folder / EXAMPLES / moved.name)
        else:
            link_file(before, f"{EXAMPLES}/{name}.split.arrow", folder, kept)
    for number, part in enumerate(work.shaped):
        if part.examples or (number == len(work.shaped) - 1 and not names):  # one file at least, for the names of the columns
            names.append(f"{len(names):03d}")
            (folder / EXAMPLES).mkdir(exist_ok=True)
            shutil.move(part.out / "examples.arrow", folder / EXAMPLES / f"{names[-1]}.arrow")
            shutil.move(part.out / "split.arrow", folder / EXAMPLES / f"{names[-1]}.split.arrow")
    return names


def _vocabularies(features: list[Feature], path: Path) -> None:
    values = [
        pl.DataFrame(
            {"owner": f.owner, "feature": f.name, "code": pl.int_range(FIRST_ID, f.size, eager=True), "value": f.values}
        )
        for f in features
        if len(f.values)
    ]
    if values:
        pl.concat(values).write_parquet(path)


def _state(data: Data, work: Work, before: Before, folder: Path) -> None:
    """What an append goes on from: the newest rows, which it may repeat (ids are places among all values), hashes, features.

    Requests go on from the features, too, so that they are there even where nothing can be appended.
    """
    recent = [read_arrow(found.recent) for found in work.settled if found.recent.exists()]
    if recent:
        id_of = {name: np.load(id_file(work.scratch, name)) for name in (USER, ITEM)}
        rows = pl.concat(recent)
        places = [pl.Series(name, id_V[rows[name].to_numpy()] - FIRST_ID) for name, id_V in id_of.items()]
        recent = [rows.with_columns(places)]
    if before.recent is not None and before.recent.exists():  # of users without new rows
        old = read_arrow(before.recent).filter(pl.col(TIME_MS) >= work.newest_ms - data.events.max_lateness)
        known = pl.concat([rows[USER] for rows in recent]) if recent else pl.Series([], dtype=pl.Int32)
        recent.append(old.filter(~pl.col(USER).is_in(known.unique().implode())))
    if recent:
        write_arrow(pl.concat([rows.select(recent[0].columns) for rows in recent]), folder / RECENT_FILE)
    if data.can_grow or work.states:
        (folder / RECENT_FILE).parent.mkdir(exist_ok=True)
    if data.can_grow:
        for name in work.values:
            shutil.copyfile(hash_file(work.scratch, name), hash_state_file(folder, name))
    for group, file in enumerate(work.states):
        shutil.copyfile(file, feature_state_file(folder, group))
