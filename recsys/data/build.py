"""The whole of `prepare`: raw logs in, a dataset artefact out. Every step is a verb of this folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.artefact import file_hash, fingerprint, write_artefact
from recsys.columns import (
    CONTEXT_PREFIX,
    EXAMPLES_FILE,
    FIRST_ID,
    IN_HISTORY,
    ITEM,
    ITEM_ID,
    ITEMS_FILE,
    LABEL_PREFIX,
    LENGTH,
    POSITION,
    PROPENSITY,
    ROW,
    SLOT,
    SPLIT,
    SPLIT_NAMES,
    START,
    TIME_MS,
    TIMELINE_FILE,
    TRAIN,
    TRAIN_COUNT,
    USER,
    USER_ID,
    USERS_FILE,
    VOCABULARIES_FILE,
    WEIGHT,
    label,
)
from recsys.data import Data
from recsys.data.clean import clean_events, clean_table
from recsys.data.tables import Feature, encode_table
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
    events, bad_events, report = clean_events(data, raw)
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
            rows, quarantine[f"{owner}s"], report[f"{owner}_table"] = clean_table(
                source, raw, ids, max_bad_share=data.filters.max_bad_share
            )
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
        "first_time_ms": ordered[TIME_MS].min() if data.events.has_time else None,
        "last_time_ms": ordered[TIME_MS].max() if data.events.has_time else None,
        "tasks": tasks,
    }


def _write(prepared: Prepared, folder: Path) -> None:
    frames = {
        TIMELINE_FILE: prepared.timeline,
        EXAMPLES_FILE: prepared.examples,
        USERS_FILE: prepared.users,
        ITEMS_FILE: prepared.items,
    }
    for name, frame in frames.items():  # uncompressed and in one chunk, so that readers map the file and copy nothing
        frame.rechunk().write_ipc(
            folder / name, compression="uncompressed", compat_level=pl.CompatLevel.oldest(), record_batch_size=MAX_ROWS
        )
    values = [
        pl.DataFrame(
            {"owner": f.owner, "feature": f.name, "code": pl.int_range(FIRST_ID, f.size, eager=True), "value": f.values}
        )
        for f in prepared.features
        if len(f.values)
    ]
    if values:
        pl.concat(values).write_parquet(folder / VOCABULARIES_FILE)
    for name, frame in prepared.quarantine.items():
        if len(frame):
            (folder / "quarantine").mkdir(exist_ok=True)
            frame.rename({ROW: "source_row"}).write_parquet(folder / "quarantine" / f"{name}.parquet")
