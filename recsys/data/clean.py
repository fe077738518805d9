"""Read the raw tables, set bad rows aside, and say how many there were and why."""

from pathlib import Path
from typing import Any

import polars as pl

from recsys.columns import IN_HISTORY, label
from recsys.data import Data
from recsys.data.canonical import canonicalise
from recsys.data.check import check_expressions
from recsys.data.quarantine import REASON, REPEATED, mark_bad_rows, mark_repeats
from recsys.data.source import Source, Table
from recsys.data.tables import KEY, canonical_table, one_row_per_id
from recsys.data.text import UNREADABLE
from recsys.errors import InputError


def clean_events(data: Data, raw: Path) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Canonical good rows, quarantined rows with reasons, and the counts of both."""
    events, path = data.events, raw / data.events.path
    source = events.scan(raw)
    check_expressions(source, events.expressions, events.files(raw)[0])
    marked = _collect(
        source.pipe(mark_repeats, columns=events.read_columns)
        .pipe(canonicalise, events=events)
        .pipe(mark_bad_rows, has_time=events.has_time)
        .drop(UNREADABLE, REPEATED),
        events, raw,
    )  # fmt: skip
    if marked.is_empty():
        raise InputError(f"{path} has no rows: point `data.events.path` at a log with events")
    quarantine, reasons = _quarantined(marked, path, data.filters.max_bad_share)
    clean = marked.filter(pl.col(REASON).is_null()).drop(REASON)
    if not clean[IN_HISTORY].any():
        raise InputError(f"{path}: no good row satisfies history = {events.history!r}, so every timeline is empty: change it")
    for task in events.labels:
        if clean[label(task)].is_nan().all():
            raise InputError(f"{path}: labels.{task} = {events.labels[task]!r} is null in every row: mend or remove it")
    good = data.filters(clean)
    if not good[IN_HISTORY].any():
        raise InputError(f"{path}: filters.min_user_events and min_item_events leave no timeline event: lower them")
    report = {
        "rows_read": len(marked),
        "rows_quarantined": len(quarantine),
        "quarantined_by_reason": reasons,
        "rows_dropped_by_min_counts": len(clean) - len(good),
        "rows_kept": len(good),
    }
    return good, quarantine, report


def clean_table(
    table: Table, raw: Path, ids: pl.Series, *, max_bad_share: float
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """One row per id, quarantined rows with reasons, and the counts of both."""
    source, path = table.scan(raw), raw / table.path
    check_expressions(source, table.expressions, table.files(raw)[0])
    marked = _collect(canonical_table(source, table=table), table, raw)
    if marked.is_empty():
        raise InputError(f"{path} has no rows: point `path` at a table with rows, or leave the table out of the config")
    quarantine, reasons = _quarantined(marked, path, max_bad_share)
    good = marked.filter(pl.col(REASON).is_null())
    rows = one_row_per_id(good.lazy()).collect()
    report = {
        "rows_read": len(marked),
        "rows_quarantined": len(quarantine),
        "quarantined_by_reason": reasons,
        "rows_of_repeated_ids": len(good) - len(rows),
        "ids_of_events_without_row": len(ids) - int(ids.is_in(rows[KEY].implode()).sum()),
    }
    return rows, quarantine, report


def _collect(frame: pl.LazyFrame, source: Source, raw: Path) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise source.unreadable(source.files(raw), error) from error


def _quarantined(marked: pl.DataFrame, path: Path, max_bad_share: float) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows with a reason, and how many each reason has. Raises InputError when they are too large a share of all."""
    bad = marked.filter(pl.col(REASON).is_not_null())
    counts = bad.group_by(REASON).len("n").sort("n", REASON, descending=[True, False])
    reasons = dict(counts.iter_rows())
    share = len(bad) / len(marked)
    if share > max_bad_share or len(bad) == len(marked):
        shown = "; ".join(f"{reason}: {count:,}" for reason, count in list(reasons.items())[:3])
        limit = f"more than filters.max_bad_share {max_bad_share}" if share > max_bad_share else "which leaves none"
        raise InputError(
            f"{path}: {share:.1%} of {len(marked):,} rows are bad ({shown}), {limit}: mend the files or the `data` section"
            + (", or raise the limit" if share < 1 else "")
        )
    return bad, reasons
