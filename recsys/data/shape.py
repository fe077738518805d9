"""One task: the settled rows of one shard to its part of the dataset: features, split, labels, positions. Shapes: N = rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import (
    ASOF_PREFIX,
    FEATURE_PREFIX,
    IN_HISTORY,
    ITEM,
    POSITION,
    PROPENSITY,
    ROW,
    SLOT,
    SPLIT,
    SPLIT_NAMES,
    TIME_MS,
    TRAIN,
    UNKNOWN_ID,
    USER,
    WEIGHT,
    context,
    label,
)  # fmt: skip
from recsys.data import Data
from recsys.data.arrow import read_arrow, write_arrow
from recsys.data.identity import hashed_columns, row_hashes
from recsys.data.ids import hash_file
from recsys.data.ingest import ROW_BITS
from recsys.data.labels import Histogram, Quantile, Within, horizon_ms
from recsys.data.point_in_time import feature_values
from recsys.data.rows import dense_rows, neighbours, repeats
from recsys.data.slowly import as_of, slow_table
from recsys.data.splits.files import GIVEN_SPLIT
from recsys.data.splits.random import ROW_HASH
from recsys.data.timeline import positions

COUNTS_FILE = "counts.npz"
GIVEN = "given.npy"  # the split of every file, where the log brings one
LENGTH_BEFORE = "length_before.npy"  # timeline events by user before an append


@dataclass(frozen=True)
class ShapeTask:
    """Rows of one settled shard to its part of the dataset, in `out`.

    The folder `ids` holds user.npy and item.npy (place -> dense id, -1 dropped) and what else all shards share.
    """

    data: Data
    rows: Path
    ids: Path
    shard: int
    num_parts: int
    cuts_ms: tuple[int, int] | None
    end_ms: int
    fitted: Mapping[str, Histogram]
    out: Path


@dataclass(frozen=True)
class Shaped:
    """Files in `out`: timeline.arrow, examples.arrow, split.arrow, counts.npz."""

    out: Path
    rows: int
    users: int  # with timeline events
    by_split: np.ndarray  # timeline events by split
    examples: int
    tasks: dict[str, tuple[int, float]]  # labelled rows and the sum of their labels
    hash_sum: int
    tied_events: int  # timeline events whose user has another at the same time
    repeated_pairs: int  # timeline events whose user had the item before
    first_ms: int | None
    last_ms: int | None

    @property
    def events(self) -> int:
        return int(self.by_split.sum())


def shape(task: ShapeTask) -> Shaped:
    task.out.mkdir(parents=True, exist_ok=True)
    rows = split_rows(task.data, task.rows, task.ids, task.shard, task.num_parts, task.cuts_ms)
    rows = _finished_labels(rows, task)
    before = task.ids / LENGTH_BEFORE
    rows = positions(
        rows, ties=task.data.events.ties, length_before=np.load(before, mmap_mode="r") if before.exists() else None
    )
    timeline = rows.filter(IN_HISTORY)
    write_arrow(timeline.select(USER, ITEM, TIME_MS), task.out / "timeline.arrow")
    count_US = _write_counts(timeline, task.out / COUNTS_FILE)
    labels = [label(name) for name in task.data.events.labels]
    labelled = rows.filter(pl.any_horizontal(pl.col(labels).is_not_nan())) if labels else rows.clear()
    write_arrow(_examples(labelled, task), task.out / "examples.arrow")
    write_arrow(labelled.select(SPLIT), task.out / "split.arrow")
    known = {name: rows[label(name)].drop_nans().cast(pl.Float64) for name in task.data.events.labels}
    user_E, item_E, time_ms_E = (timeline[name].to_numpy() for name in (USER, ITEM, TIME_MS))
    time_ms_N = rows[TIME_MS].to_numpy()
    return Shaped(
        task.out,
        rows=len(rows),
        users=len(count_US),
        by_split=count_US.sum(axis=0),
        examples=len(labelled),
        tasks={name: (len(values), float(values.sum())) for name, values in known.items()},
        hash_sum=int(rows[ROW_HASH].to_numpy().sum(dtype=np.uint64)),
        tied_events=int(neighbours(repeats(user_E) & repeats(time_ms_E)).sum()),
        repeated_pairs=int(repeats(np.sort(user_E.astype(np.int64) << 32 | item_E)).sum()),
        first_ms=int(time_ms_N.min()) if len(rows) else None,
        last_ms=int(time_ms_N.max()) if len(rows) else None,
    )


def split_rows(data: Data, path: Path, ids: Path, shard: int, num_parts: int, cuts_ms: tuple[int, int] | None) -> pl.DataFrame:
    """Dense rows with their hash, their point-in-time features and their split, in the order of the timelines."""
    rows = dense_rows(path, ids)
    if data.features:
        rows = rows.with_columns([
            pl.Series(FEATURE_PREFIX + name, values)
            for name, values in feature_values(data, ids, shard, len(rows), num_parts).items()
        ])  # fmt: skip
    columns = hashed_columns(rows.columns)
    hash_of = {name: np.load(hash_file(ids, name), mmap_mode="r") for name in columns if hash_file(ids, name).exists()}
    rows = rows.with_columns(pl.Series(ROW_HASH, row_hashes(rows, hash_of, columns)))
    if (ids / GIVEN).exists():
        rows = rows.with_columns(pl.Series(GIVEN_SPLIT, np.load(ids / GIVEN)[(rows[ROW] // (1 << ROW_BITS)).to_numpy()]))
    return data.split(rows.lazy(), cuts_ms=cuts_ms, ties=data.events.ties).collect()


def fit_labels(task: ShapeTask) -> dict[str, Histogram]:
    """What labels need to know of a shard's training rows."""
    rows = split_rows(task.data, task.rows, task.ids, task.shard, task.num_parts, task.cuts_ms)
    rows = rows.filter(pl.col(SPLIT) == TRAIN)
    return {name: spec.fit(rows, name) for name, spec in task.data.events.made_labels.items() if isinstance(spec, Quantile)}


def _finished_labels(rows: pl.DataFrame, task: ShapeTask) -> pl.DataFrame:
    """Fitted labels, and delayed ones taken back where their window reaches into a later part of the split."""
    lazy = rows.lazy()
    for name, spec in task.data.events.made_labels.items():
        if spec.is_fitted:
            lazy = spec(lazy, name, end_ms=task.end_ms, fitted=task.fitted[name])
        elif isinstance(spec, Within) and task.cuts_ms is not None:
            is_known = pl.col(TIME_MS) + spec.within <= horizon_ms(task.cuts_ms, task.end_ms)
            lazy = lazy.with_columns(
                pl.when(is_known).then(label(name)).otherwise(float("nan")).cast(pl.Float32).alias(label(name))
            )
    return lazy.collect()


def _write_counts(timeline: pl.DataFrame, path: Path) -> np.ndarray:
    """Timeline events by user and split, which are returned, and training events by item."""
    user_E, split_E = timeline[USER].to_numpy(), timeline[SPLIT].to_numpy()
    first_E = np.flatnonzero(~repeats(user_E))
    count_US = np.zeros((len(first_E), len(SPLIT_NAMES)), np.int64)
    if len(first_E):
        for split in range(len(SPLIT_NAMES)):
            count_US[:, split] = np.add.reduceat((split_E == split).astype(np.int64), first_E)
    count_I = np.bincount(timeline[ITEM].to_numpy()[split_E == TRAIN])
    item_I = np.flatnonzero(count_I)
    np.savez(path, user=user_E[first_E], count=count_US, item=item_I, item_count=count_I[item_I])
    return count_US


def _examples(labelled: pl.DataFrame, task: ShapeTask) -> pl.DataFrame:
    constants = {SLOT: pl.lit(-1, pl.Int32), PROPENSITY: pl.lit(float("nan"), pl.Float32), WEIGHT: pl.lit(1.0, pl.Float32)}
    missing = [value.alias(name) for name, value in constants.items() if name not in labelled.columns]
    rows = labelled.lazy().with_columns(missing)
    asof = []
    for owner, table in ((USER, task.data.users), (ITEM, task.data.items)):
        if table is not None and table.changes:
            rows = as_of(rows, read_arrow(slow_table(task.ids, owner)).lazy(), on=owner, features=list(table.features))
            asof += [ASOF_PREFIX + name for name in table.features]
    events = task.data.events
    names = [*map(label, events.labels), *map(context, events.context), *(FEATURE_PREFIX + name for name in task.data.features)]
    examples = rows.select(USER, ITEM, POSITION, TIME_MS, SLOT, PROPENSITY, WEIGHT, *names, *asof).collect()
    # Through numpy: whether a filled column keeps its bitmap of nulls, and with it the bytes of the file, hangs on the threads.
    return examples.with_columns([pl.Series(name, examples[name].fill_null(UNKNOWN_ID).to_numpy()) for name in asof])
