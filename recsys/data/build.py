"""The whole of `prepare`: raw logs in, a dataset artefact out. Every step is a verb of this folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.artefact import file_hash, fingerprint, write_artefact
from recsys.columns import (
    CONTEXT_PREFIX, EXAMPLES_FILE, FIRST_ID, IN_HISTORY, ITEM, ITEM_ID, ITEMS_FILE, LABEL_PREFIX, LENGTH, POSITION, PROPENSITY, ROW,
    SLOT, SPLIT, SPLIT_NAMES, START, TIME_MS, TIMELINE_FILE, TRAIN, TRAIN_COUNT, USER, USER_ID, USERS_FILE, VOCABULARIES_FILE, WEIGHT, label,
)  # fmt: skip
from recsys.data import Data
from recsys.data.canonical import canonicalise
from recsys.data.quarantine import REASON, REPEATED, mark_bad_rows, mark_repeats
from recsys.data.source import Source, Table, check_expressions, first_line
from recsys.data.tables import Feature, canonical_table, encode_table, one_row_per_id
from recsys.data.text import UNREADABLE
from recsys.data.timeline import order_events
from recsys.data.vocabulary import encode, vocabulary
from recsys.errors import InputError

MAX_ROWS = 2**31 - 1  # of one record batch: all rows of a file in one, so that a column is one array


@dataclass(frozen=True)
class Prepared:
    """A dataset in memory, as frames whose rows are already in their final order."""

    timeline: pl.DataFrame
    examples: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    features: list[Feature]
    quarantine: dict[str, pl.DataFrame]
    report: dict[str, Any]


def build(data: Data, raw: Path, out: Path) -> dict[str, Any]:
    """Read `raw`, write the dataset artefact `out`, return its manifest. Raises InputError and writes nothing on bad input."""
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder: name the folder of the raw logs with --data")
    prepared = transform(data, raw)
    sources = [source for source in (data.events, data.users, data.items) if source is not None]
    files = sorted({file for source in sources for file in source.files(raw)})
    with write_artefact(
        out, "dataset",
        inputs={str(file.relative_to(raw)): file_hash(file) for file in files},
        config=data.model_dump(mode="json"),
        tasks=list(data.events.labels),
        context=list(data.events.context),
        features=[
            {"name": f.name, "owner": f.owner, "size": f.size, "multi_valued": f.multi_valued} for f in prepared.features
        ],
        has_time=data.events.has_time,
        report=prepared.report,
    ) as (folder, manifest):  # fmt: skip
        _write(prepared, folder)
        manifest["data_fingerprint"] = fingerprint([manifest["inputs"], manifest["config"]])
    return manifest


def transform(data: Data, raw: Path) -> Prepared:
    """The dataset's frames from raw files. Raises InputError."""
    events, bad_events, report = _clean(data, raw)
    user_ids, item_ids = vocabulary(events[USER_ID]), vocabulary(events[ITEM_ID])
    ordered = (
        events.lazy()
        .with_columns(encode(events[USER_ID], user_ids).alias(USER), encode(events[ITEM_ID], item_ids).alias(ITEM))
        .drop(USER_ID, ITEM_ID)
        .pipe(order_events, ties=data.events.ties)
        .pipe(data.split)
        .collect()
    )
    timeline = ordered.filter(IN_HISTORY)
    _check_split(timeline, data)
    quarantine, tables, features = {"events": bad_events}, {}, []
    for owner, ids, source in (("user", user_ids, data.users), ("item", item_ids, data.items)):
        rows = None
        if source is not None:
            rows, quarantine[f"{owner}s"], report[f"{owner}_table"] = _attributes(source, raw, ids, data.filters.max_bad_share)
        tables[owner], found = encode_table(ids, owner, rows)
        features += found
    examples, context_features = _examples(ordered)
    return Prepared(
        timeline=timeline.select(pl.col(ITEM), pl.col(TIME_MS), pl.col(SPLIT)),
        examples=examples,
        users=tables["user"].hstack(_places(timeline, len(tables["user"]))),
        items=tables["item"].with_columns(_train_counts(timeline, len(tables["item"]))),
        features=[*features, *context_features],
        quarantine=quarantine,
        report=report | _describe(ordered, timeline, data),
    )


def _clean(data: Data, raw: Path) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
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


def _attributes(
    table: Table, raw: Path, ids: pl.Series, max_bad_share: float
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
        "ids_of_events_without_row": len(ids) - int(ids.is_in(rows["id"].implode()).sum()),
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


def _check_split(timeline: pl.DataFrame, data: Data) -> None:
    counts = dict(timeline[SPLIT].value_counts().iter_rows())
    empty = [name for number, name in enumerate(SPLIT_NAMES) if not counts.get(number)]
    if empty:
        raise InputError(
            f"split.kind {data.split.kind} leaves no timeline event to {' and '.join(empty)}: use another split or more data "
            f"({len(timeline):,} timeline events of {timeline[USER].n_unique():,} users)"
        )


def _examples(ordered: pl.DataFrame) -> tuple[pl.DataFrame, list[Feature]]:
    """Rows that carry at least one label, with context features encoded. Without tasks there are none."""
    labels = [name for name in ordered.columns if name.startswith(LABEL_PREFIX)]
    contexts = [name for name in ordered.columns if name.startswith(CONTEXT_PREFIX)]
    labelled = ordered.filter(pl.any_horizontal(pl.col(labels).is_not_nan())) if labels else ordered.clear()
    features = [Feature(name.removeprefix(CONTEXT_PREFIX), "context", vocabulary(labelled[name])) for name in contexts]
    encoded = [encode(labelled[name], f.values).alias(name) for name, f in zip(contexts, features, strict=True)]
    plain = [USER, ITEM, POSITION, TIME_MS, SPLIT, SLOT, PROPENSITY, *labels]
    return labelled.select(plain).with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT), *encoded), features


def _places(timeline: pl.DataFrame, num_users: int) -> pl.DataFrame:
    """`start` and `length` of every user's slice of the timeline, rows 0 and 1 being empty."""
    counts = timeline.group_by(USER).len("n").with_columns(pl.col(USER).cast(pl.Int64))
    every = pl.DataFrame({USER: pl.int_range(num_users, eager=True)}).join(counts, on=USER, how="left", maintain_order="left")
    length = every["n"].fill_null(0).cast(pl.Int64)
    return pl.DataFrame({START: length.cum_sum() - length, LENGTH: length})


def _train_counts(timeline: pl.DataFrame, num_items: int) -> pl.Series:
    counts = timeline.filter(pl.col(SPLIT) == TRAIN).group_by(ITEM).len("n").with_columns(pl.col(ITEM).cast(pl.Int64))
    every = pl.DataFrame({ITEM: pl.int_range(num_items, eager=True)}).join(counts, on=ITEM, how="left", maintain_order="left")
    return every["n"].fill_null(0).cast(pl.Int64).alias(TRAIN_COUNT)


def _describe(ordered: pl.DataFrame, timeline: pl.DataFrame, data: Data) -> dict[str, Any]:
    tasks = {
        task: {"labelled": int(values.is_not_nan().sum()), "mean": values.filter(values.is_not_nan()).mean()}
        for task in data.events.labels
        for values in [ordered[label(task)]]
    }
    tied = timeline.select((pl.struct(USER, TIME_MS).is_duplicated()).mean()).item()
    pairs = timeline.select(pl.struct(USER, ITEM).n_unique()).item()
    by_split = dict(timeline[SPLIT].value_counts().iter_rows())
    return {
        "users": ordered[USER].n_unique(),
        "items": ordered[ITEM].n_unique(),
        "timeline_events": len(timeline),
        "timeline_by_split": {name: by_split.get(i, 0) for i, name in enumerate(SPLIT_NAMES)},
        "share_with_tied_time": round(tied, 4),
        "share_of_repeated_pairs": round(1 - pairs / len(timeline), 4),
        "first_time_ms": ordered[TIME_MS].min(),
        "last_time_ms": ordered[TIME_MS].max(),
        "tasks": tasks,
    }


def _write(prepared: Prepared, folder: Path) -> None:
    frames = {
        TIMELINE_FILE: prepared.timeline, EXAMPLES_FILE: prepared.examples, USERS_FILE: prepared.users, ITEMS_FILE: prepared.items,
    }  # fmt: skip
    for name, frame in frames.items():  # uncompressed and in one chunk, so that readers map the file and copy nothing
        frame.rechunk().write_ipc(folder / name, compression="uncompressed", compat_level=pl.CompatLevel.oldest(), record_batch_size=MAX_ROWS)
    values = [
        pl.DataFrame({"owner": f.owner, "feature": f.name, "code": pl.int_range(FIRST_ID, f.size, eager=True), "value": f.values})
        for f in prepared.features
        if len(f.values)
    ]
    if values:
        pl.concat(values).write_parquet(folder / VOCABULARIES_FILE)
    for name, frame in prepared.quarantine.items():
        if len(frame):
            (folder / "quarantine").mkdir(exist_ok=True)
            frame.rename({ROW: "source_row"}).write_parquet(folder / "quarantine" / f"{name}.parquet")
