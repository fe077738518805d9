"""One task: the spilled rows of one user shard with their ids, in order, without duplicates, labelled, filtered by user.

Shapes: N = rows of the shard.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import ARRIVAL, CONTEXT_PREFIX, ITEM, RAW, ROW, TIME_MS, USER
from recsys.data import Data
from recsys.data.arrow import read_arrow, write_arrow
from recsys.data.ingest import ROW_BITS
from recsys.data.labels import value
from recsys.data.rows import in_order, neighbours, repeats
from recsys.data.rules import CONFLICT, REASON, REASONS, RULE, TOO_LATE, Broken, Conflicts, count_broken, duplicates
from recsys.data.splits import GivenFiles

Files = tuple[Path, ...]


@dataclass(frozen=True)
class Lateness:
    """When rows of each arrival unit may have happened. Rows that an earlier unit brought lately lie in `recent`.

    A row takes its place at the moment it became known: one that is older than what earlier units brought is moved up to just
    after them, so that nothing changes what came before. One that is older by more than `max_ms` is set aside.
    """

    earliest_ms: tuple[int, ...]
    newest_ms: int
    max_ms: int
    recent: Path | None


@dataclass(frozen=True)
class SettleTask:
    """Bring the spilled rows of one shard together. `maps[i]` is the folder with the place of every code of `spills[i]`."""

    data: Data
    spills: Files
    maps: Files
    lateness: Lateness | None  # None where all rows arrive together
    end_ms: int  # newest time of the log
    begins: tuple[int, ...]  # of each file its first row's number among all rows; empty where the log has times
    out: Path


@dataclass
class Settled:
    """Rows lie in `out`, sorted by user, time and row, which is left out where no later task reads it.

    `user` and `item` are places among all values, before minimum counts.
    """

    out: Path
    rows: int = 0
    rows_dropped_by_steps: int = 0
    bad: Counter[Broken] = field(default_factory=Counter)
    late_rows: int = 0
    conflicting_rows: int = 0

    @property
    def quarantine(self) -> Path:
        return self.out.with_suffix(".quarantine.arrow")

    @property
    def recent(self) -> Path:
        return self.out.with_suffix(".recent.arrow")


def settle(task: SettleTask) -> Settled:
    done = Settled(task.out)
    rows = pl.concat([_placed(spill, maps) for spill, maps in zip(task.spills, task.maps, strict=True)])
    if task.begins:
        begins_N = np.array(task.begins)[(rows[ROW] // (1 << ROW_BITS)).to_numpy()]
        rows = rows.with_columns(pl.col(TIME_MS) + pl.Series(begins_N))
    first = int(rows[ROW].min()) if len(rows) else 0  # type: ignore[arg-type]
    too_late = rows.clear()
    if task.lateness:
        rows, too_late = _split_too_late(rows, task.lateness)
    rows, bad, done.conflicting_rows = _without_duplicates(in_order(rows), task.data.events.conflicts, first)
    if task.lateness:
        if task.data.can_grow:
            write_arrow(rows.filter(pl.col(TIME_MS) >= task.lateness.newest_ms - task.lateness.max_ms), done.recent)
        rows, done.late_rows = _in_order_of_arrival(rows.filter(pl.col(ROW) >= first), task.lateness)
    bad = pl.concat([too_late.with_columns(pl.lit(TOO_LATE).alias(RULE)), bad.filter(pl.col(ROW) >= first)])
    if len(bad):
        bad = bad.with_columns(pl.col(RULE).replace_strict(REASONS, return_dtype=pl.String).alias(REASON))
        done.bad.update(count_broken(bad))
        write_arrow(bad, done.quarantine)
    rows = _with_labels(rows.drop(RAW, strict=False), task.data, task.end_ms)
    kept = rows
    for step in task.data.steps:
        kept = step(kept.lazy()).collect()
    done.rows, done.rows_dropped_by_steps = len(kept), len(rows) - len(kept)
    write_arrow(kept if isinstance(task.data.split, GivenFiles) else kept.drop(ROW), task.out)
    return done


def _with_labels(rows: pl.DataFrame, data: Data, end_ms: int) -> pl.DataFrame:
    """Labels made from values, but for those fitted on training rows; the values they leave behind go."""
    lazy, spent = rows.lazy(), []
    for task, spec in data.events.made_labels.items():
        if not spec.is_fitted:
            lazy = spec(lazy, task, end_ms=end_ms)
            spent += [value(task, suffix) for suffix in spec.values]
    return lazy.drop(spent).collect() if spent else rows


def _split_too_late(rows: pl.DataFrame, lateness: Lateness) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that count, those of `recent` that share their users included, and rows that come too late."""
    is_late = pl.col(TIME_MS) < _earliest(rows, lateness) - 1 - lateness.max_ms
    rows, too_late = rows.filter(~is_late), rows.filter(is_late)
    if lateness.recent is not None:
        recent = read_arrow(lateness.recent).select(rows.columns)
        rows = pl.concat([recent.filter(pl.col(USER).is_in(rows[USER].unique().implode())), rows])
    return rows, too_late


def _in_order_of_arrival(rows: pl.DataFrame, lateness: Lateness) -> tuple[pl.DataFrame, int]:
    earliest = _earliest(rows, lateness)
    late = int((rows[TIME_MS] < earliest).sum())
    return in_order(rows.with_columns(pl.max_horizontal(TIME_MS, earliest).alias(TIME_MS)).sort(ROW)) if late else rows, late


def _earliest(rows: pl.DataFrame, lateness: Lateness) -> pl.Series:
    return pl.Series(np.array(lateness.earliest_ms)[rows[ARRIVAL].to_numpy()])


def _placed(spill: Path, maps: Path) -> pl.DataFrame:
    rows = read_arrow(spill)
    names = [USER, ITEM, *[name for name in rows.columns if name.startswith(CONTEXT_PREFIX)]]
    return rows.with_columns([pl.Series(name, np.load(maps / f"{name}.npy")[rows[name].to_numpy()]) for name in names])


def _without_duplicates(rows: pl.DataFrame, conflicts: Conflicts, first: int) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Rows that stay, rows that go with `rule`, and how many of the first share user, item and time with an earlier row.

    Of these, rows before row `first` were counted when they arrived.
    """
    again_N = repeats(rows[USER].to_numpy()) & repeats(rows[TIME_MS].to_numpy())
    tied = rows.filter(pl.Series(neighbours(again_N)))  # only rows of one moment can be duplicates
    if tied.is_empty():
        return rows, tied.with_columns(pl.lit(None, pl.String).alias(RULE)), 0
    marked = tied.lazy().pipe(duplicates, conflicts=conflicts).collect()
    bad = marked.filter(pl.col(RULE).is_not_null()).drop(CONFLICT)
    left = rows.filter(~pl.col(ROW).is_in(bad[ROW].implode())) if len(bad) else rows
    again = marked.filter(pl.col(RULE).is_null() & pl.col(CONFLICT) & ~pl.struct(USER, TIME_MS, ITEM).is_first_distinct())
    return left, bad, int((again[ROW] >= first).sum())
