"""One task: raw files, chunk by chunk, to validated rows with codes for ids, spilled to one file per user shard.

Memory is bounded by a chunk and by the distinct values. Shapes: N = rows of a chunk, C = codes.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.columns import (
    ARRIVAL,
    IN_HISTORY,
    ITEM,
    ITEM_ID,
    LABEL_PREFIX,
    PROPENSITY,
    RAW,
    ROW,
    SLOT,
    TIME_MS,
    USER,
    USER_ID,
    VALUE_PREFIX,
    WEIGHT,
    context,
)  # fmt: skip
from recsys.data.arrow import record_batch
from recsys.data.canonical import canonicalise, clean
from recsys.data.check import check_expressions
from recsys.data.labels import value_columns
from recsys.data.piece import Piece
from recsys.data.rules import Broken, count_broken, split_bad
from recsys.data.source import Events
from recsys.data.vocabulary import Encoder, shards

CHUNK_ROWS = 1 << 20
ROW_BITS = 40  # a row's number over all files: the file's number, then 40 bits for the row in it
QUARANTINE = "quarantine"


@dataclass(frozen=True)
class IngestTask:
    """Read `pieces`, each with its number among all files and the number of its arrival unit, into `folder`. Rows of the users
    `without` are passed over, as if they were not there."""

    events: Events
    pieces: tuple[tuple[int, int, Piece], ...]
    num_shards: int
    folder: Path
    now_ms: int
    without: frozenset[str] = frozenset()


@dataclass
class Ingested:
    """What a task found. Rows lie in `spill(folder, shard)`, distinct values in `dictionary(folder, column)`."""

    folder: Path
    rows_read: int = 0
    bad: Counter[Broken] = field(default_factory=Counter)
    newest_ms: dict[int, int] = field(default_factory=dict)  # arrival -> newest time of a good row
    rows: dict[int, int] = field(default_factory=dict)  # number of a file -> rows read
    history_rows: int = 0
    shards: list[int] = field(default_factory=list)


def spill(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:04d}.arrow"


def dictionary(folder: Path, column: str) -> Path:
    return folder / f"dictionary-{column}.arrow"


def ingest(task: IngestTask) -> Ingested:
    """Run the task. Raises InputError for a file that cannot be read or does not fit the config."""
    shutil.rmtree(task.folder, ignore_errors=True)  # what a killed worker left
    task.folder.mkdir(parents=True)
    found = Ingested(task.folder)
    encoders = {name: Encoder() for name in (USER, ITEM, *map(context, task.events.context))}
    writer = _ShardWriter(task.folder, task.num_shards)
    spilling = ThreadPoolExecutor(1)  # a chunk is written while the next one is judged
    written: Future[None] | None = None
    try:
        for number, arrival, piece in task.pieces:
            for chunk in _chunks(task.events, piece, encoders, task.without):
                good, bad = _judge(chunk, task, encoders, writer)
                found.rows_read += len(chunk)
                found.rows[number] = found.rows.get(number, 0) + len(chunk)
                found.bad.update(count_broken(bad))
                _set_aside(bad, piece, task.folder / QUARANTINE)
                if len(good):
                    time_N = good[TIME_MS].to_numpy()
                    found.newest_ms[arrival] = max(found.newest_ms.get(arrival, int(time_N[0])), int(time_N.max()))
                    found.history_rows += int(good[IN_HISTORY].sum())
                    for name, encoder in encoders.items():
                        encoder.seen(good[_code(name)].to_numpy(), arrival)
                    if written is not None:
                        written.result()
                    written = spilling.submit(writer.write, _spilled(good, task.events, number, arrival))
        if written is not None:
            written.result()
    finally:
        spilling.shutdown()
        found.shards = writer.close()
    for name, encoder in encoders.items():
        encoder.table().write_ipc(dictionary(task.folder, name), compression="uncompressed")
    return found


def _chunks(events: Events, piece: Piece, encoders: Mapping[str, Encoder], without: frozenset[str]) -> Iterator[pl.DataFrame]:
    """Canonical rows with the codes of their ids and context features beside the text."""
    text = {USER: USER_ID, ITEM: ITEM_ID}
    codes = [encoder.codes(pl.col(text.get(name, name))).alias(_code(name)) for name, encoder in encoders.items()]
    scan = piece.scan()
    check_expressions(scan, events.expressions, piece.location)
    rows = canonicalise(scan, events=events)
    if without:
        rows = rows.filter(~pl.col(USER_ID).is_in(sorted(without)).fill_null(value=False))
    rows = rows.with_columns(codes)
    with piece.reading():
        yield from rows.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True)


def _judge(
    chunk: pl.DataFrame, task: IngestTask, encoders: Mapping[str, Encoder], writer: "_ShardWriter"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Good rows with their codes, and bad rows without them."""
    code_of = {name: chunk[_code(name)].to_numpy() for name in encoders}
    new = {name: encoder.learn(code_of[name]) for name, encoder in encoders.items()}
    writer.place(new[USER])
    doubtful = any(encoders[name].doubtful(code_of[name]) for name in (USER, ITEM))
    text = chunk.drop(map(_code, encoders))
    if doubtful:  # only then are the ids of rows looked at one by one
        text = text.with_columns(clean(pl.col(USER_ID)), clean(pl.col(ITEM_ID)))
    _, bad = split_bad(
        text, labels=list(task.events.plain_labels), contexts=list(task.events.context),
        values=[name.removeprefix(VALUE_PREFIX) for name in value_columns(task.events.labels)],
        has_time=task.events.has_time, now_ms=task.now_ms, judge_ids=doubtful,
    )  # fmt: skip
    return chunk.filter(~pl.col(ROW).is_in(bad[ROW].implode())) if len(bad) else chunk, bad


def _spilled(good: pl.DataFrame, events: Events, number: int, arrival: int) -> pl.DataFrame:
    """The columns that later steps need, with codes for text."""
    optional = {PROPENSITY: events.propensity, SLOT: events.slot, WEIGHT: events.weight}
    used = [name for name, expression in optional.items() if expression is not None]
    numbers = [name for name in good.columns if name == RAW or name.startswith((LABEL_PREFIX, VALUE_PREFIX))]
    codes = [pl.col(_code(name)).alias(name) for name in (USER, ITEM, *map(context, events.context))]
    unit = [] if events.arrives == "together" else [pl.lit(arrival, pl.Int32).alias(ARRIVAL)]
    return good.select(pl.col(ROW) + (number << ROW_BITS), TIME_MS, IN_HISTORY, *unit, *used, *numbers, *codes)


def _code(name: str) -> str:
    return f"_code_{name}"


def _set_aside(bad: pl.DataFrame, piece: Piece, folder: Path) -> None:
    if len(bad):
        folder.mkdir(exist_ok=True)
        number = len(list(folder.iterdir()))
        bad.with_columns(pl.lit(piece.name).alias("source_file")).write_parquet(folder / f"{number:06d}.parquet")


class _ShardWriter:
    """Cuts chunks by a hash of the external user id. Files appear with their first row."""

    def __init__(self, folder: Path, num_shards: int):
        self._folder, self._num_shards = folder, num_shards
        self._shard_C = np.empty(0, np.uint16)
        self._writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}

    def place(self, new_users: pl.Series) -> None:
        """Give new users, in the order of their codes, their shards."""
        if self._num_shards > 1:
            self._shard_C = np.append(self._shard_C, shards(new_users.fill_null(""), self._num_shards))

    def write(self, rows: pl.DataFrame) -> None:
        columns = {name: rows[name].to_numpy() for name in rows.columns}
        if self._num_shards == 1:
            self._append(0, columns)
            return
        shard_N = self._shard_C[columns[USER]]
        order_N = np.argsort(shard_N, kind="stable")
        columns = {name: values[order_N] for name, values in columns.items()}
        count_S = np.bincount(shard_N, minlength=self._num_shards)
        end_S = np.cumsum(count_S)
        for shard in np.flatnonzero(count_S):
            part = slice(end_S[shard] - count_S[shard], end_S[shard])
            self._append(int(shard), {name: values[part] for name, values in columns.items()})

    def _append(self, shard: int, columns: Mapping[str, np.ndarray]) -> None:
        batch = record_batch(columns)
        if shard not in self._writers:
            self._writers[shard] = pa.ipc.new_file(spill(self._folder, shard), batch.schema)
        self._writers[shard].write_batch(batch)

    def close(self) -> list[int]:
        """The shards that got rows."""
        for writer in self._writers.values():
            writer.close()
        return list(self._writers)
