"""Two tasks that give every row its point-in-time features: `spread` sends rows to where a key's events meet, `tally` counts.

Features by user are counted where the user's rows lie. Those of other keys, such as an item's, need the rows of all users: rows
go to the part that the first key falls into, and the values come back by shard and place. Shapes: N = rows of a shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import IN_HISTORY, ITEM, TIME_MS, UNKNOWN_ID, USER, asof, context, label
from recsys.data import Data
from recsys.data.arrow import read_arrow
from recsys.data.rows import dense_rows
from recsys.data.slowly import as_of, slow_table
from recsys.features import Frame, State, compute, entities, needs
from recsys.features.state import Summary

HISTORY = "history"


def groups(data: Data) -> list[tuple[str, ...]]:
    """The distinct keys of the features, in an order that the config gives."""
    return list(entities(data.features))


@dataclass(frozen=True)
class SpreadTask:
    """Send the rows of one settled shard to the parts of every key that is not the user's."""

    data: Data
    rows: Path
    ids: Path
    shard: int
    num_parts: int
    out: Path


def spread(task: SpreadTask) -> None:
    rows = dense_rows(task.rows, task.ids)
    for group, by in enumerate(groups(task.data)):
        if USER in by:
            continue
        frame = frame_of(rows, task.data, task.ids, by)
        part_N = frame.keys[by[0]] % task.num_parts
        for part in range(task.num_parts):
            row_P = np.flatnonzero(part_N == part)
            _save(_sent(task.out, group, part, task.shard), frame.take(row_P), row_P)


@dataclass(frozen=True)
class TallyTask:
    """Count one group of features for one part: the rows of a shard where the key is the user's, else those sent to it."""

    data: Data
    group: int
    part: int
    rows: tuple[Path, ...]  # settled rows by shard
    ids: Path
    before: Path | None
    newest_ms: int
    out: Path


def tally(task: TallyTask) -> None:
    by = groups(task.data)[task.group]
    features = entities(task.data.features)[by]
    if USER in by:
        rows = dense_rows(task.rows[task.part], task.ids)
        parts = {task.part: (frame_of(rows, task.data, task.ids, by), np.arange(len(rows)))}
    else:
        parts = {shard: _load(_sent(task.out, task.group, task.part, shard)) for shard in range(len(task.rows))}
    frames = [frame for frame, _ in parts.values()]
    events = frames[0]
    for frame in frames[1:]:
        events = events.then(frame)
    state = State.load(task.before) if task.before is not None else None
    values, after = compute(features, events, events, state, until_ms=task.newest_ms)
    after.save(state_file(task.out, task.group, task.part))
    end = 0
    for shard, (frame, row_P) in parts.items():
        begin, end = end, end + len(frame)
        answer = {name: value[begin:end] for name, value in values.items()}
        np.savez(_answer(task.out, task.group, task.part, shard), allow_pickle=False, row=row_P, **answer)


def feature_values(data: Data, folder: Path, shard: int, num_rows: int, num_parts: int) -> dict[str, np.ndarray]:
    """Float32 values of every feature for the rows of a shard, in the order of the config."""
    found = {name: np.empty(num_rows, np.float32) for name in data.features}
    for group, by in enumerate(groups(data)):
        for part in [shard] if USER in by else range(num_parts):
            with np.load(_answer(folder, group, part, shard)) as answer:
                for name in entities(data.features)[by]:
                    found[name][answer["row"]] = answer[name]
    return found


def frame_of(rows: pl.DataFrame, data: Data, ids: Path, by: Sequence[str]) -> Frame:
    """Rows as arrays, with the keys and flags that features by `by` read."""
    key_names, flag_names = needs(entities(data.features)[tuple(by)])
    flags = {
        name: rows[IN_HISTORY].to_numpy() if name == HISTORY else (rows[label(name)] > 0).to_numpy() for name in flag_names
    }
    return Frame({name: _key(rows, data, ids, name) for name in key_names}, rows[TIME_MS].to_numpy(), flags)


def _key(rows: pl.DataFrame, data: Data, ids: Path, name: str) -> np.ndarray:
    if name in (USER, ITEM):
        return rows[name].to_numpy()
    if context(name) in rows.columns:
        return rows[context(name)].to_numpy()
    owner = ITEM if data.items is not None and name in data.items.features else USER
    table = data.items if owner == ITEM else data.users
    if table is not None and table.changes:  # the value of then: that of now would tell the future
        versions = read_arrow(slow_table(ids, owner)).lazy()
        found = as_of(rows.lazy().select(owner, TIME_MS), versions, on=owner, features=[name]).collect()
        return found[asof(name)].fill_null(UNKNOWN_ID).to_numpy()
    return np.load(code_file(ids, name), mmap_mode="r")[rows[owner].to_numpy()]


def code_file(ids: Path, feature: str) -> Path:
    """The code of a user or item feature with one value each, by dense id."""
    return ids / f"code-{feature}.npy"


def state_file(folder: Path, group: int, part: int) -> Path:
    return folder / f"state-{group}-{part}.npz"


def merged(states: Sequence[State]) -> State:
    """One state of parts that share no key."""
    tail = states[0].tail
    for state in states[1:]:
        tail = tail.then(state.tail)
    summaries = {name: _joined([state.summaries[name] for state in states]) for name in states[0].summaries}
    return State(max(state.time_ms for state in states), tail.take(np.argsort(tail.time_ms, kind="stable")), summaries)


def _joined(parts: Sequence[Summary]) -> Summary:
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("key_K", "last_K", "number_K")]
    order_K = np.argsort(columns[0], kind="stable")
    return Summary(*(column[order_K] for column in columns))


def _sent(folder: Path, group: int, part: int, shard: int) -> Path:
    return folder / f"sent-{group}-{part}-{shard}.npz"


def _answer(folder: Path, group: int, part: int, shard: int) -> Path:
    return folder / f"answer-{group}-{part}-{shard}.npz"


def _save(path: Path, frame: Frame, row_P: np.ndarray) -> None:
    keys = {f"key.{name}": values for name, values in frame.keys.items()}
    flags = {f"flag.{name}": values for name, values in frame.flags.items()}
    np.savez(path, allow_pickle=False, row=row_P, time=frame.time_ms, **keys, **flags)


def _load(path: Path) -> tuple[Frame, np.ndarray]:
    with np.load(path) as stored:
        named = {
            kind: {n.removeprefix(kind): stored[n] for n in stored.files if n.startswith(kind)} for kind in ("key.", "flag.")
        }
        return Frame(named["key."], stored["time"], named["flag."]), stored["row"]
