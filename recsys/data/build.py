"""The whole of `prepare`: raw logs in, a dataset artefact out.

    pieces --ingest--> spills --ids--> settle (by user shard) --minimum counts, features, cuts--> shape (by shard) --> files

Each step is a list of independent tasks that an engine runs; only what no task knows alone is worked out here. An append runs
the new pieces through the same code and goes on from what the dataset has. Shapes: V = distinct values, A = arrival units.
"""

import math
import os
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.artefact import fingerprint, write_artefact
from recsys.columns import FIRST_ID, IN_HISTORY, ITEM, LENGTH, TIME_MS, USER, context
from recsys.data import Data
from recsys.data.alike import require_alike
from recsys.data.arrow import write_arrow
from recsys.data.before import Before, fingerprints, previous
from recsys.data.check import check_expressions
from recsys.data.clean import Tables, read_tables, stop_where_too_bad
from recsys.data.days import up_to
from recsys.data.engines import Engine, Pool, Progress, Threads
from recsys.data.filters import check_timeline_left
from recsys.data.finish import counts_before, finish
from recsys.data.ids import hash_places, id_file, number_values, place_values
from recsys.data.ingest import Ingested, IngestTask, ingest, spill
from recsys.data.labels import Histogram, Within
from recsys.data.moment import infer_time_unit
from recsys.data.piece import Piece
from recsys.data.point_in_time import SpreadTask, TallyTask, code_file, groups, merged, spread, state_file, tally
from recsys.data.rows import dense_rows
from recsys.data.sessions import cut_into_sessions, has_sessions
from recsys.data.settle import Lateness, Settled, SettleTask, settle
from recsys.data.shape import GIVEN, LENGTH_BEFORE, Shaped, ShapeTask, fit_labels, shape
from recsys.data.slowly import slow_table
from recsys.data.splits import GivenFiles, GlobalTime
from recsys.data.work import Work, all_bad
from recsys.errors import InputError
from recsys.features import State, needs

SHARD_BYTES = 64 << 20  # of raw text; a byte of Parquet holds about eight times as many rows
TASK_BYTES = 4 * SHARD_BYTES
SAMPLE_ROWS = 10_000  # that show the unit of time
LONG_AGO_MS = -(2**61)
THREADS = Threads()


def build(
    data: Data, raw: Path, out: Path, *, engine: Engine = THREADS, progress: Progress | None = None,
    now_ms: int | None = None, anew: bool = False, until: date | None = None,
    without: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Read `raw`, write the dataset artefact `out`, return its manifest. Raises InputError and writes nothing on bad input.

    Where `out` holds a dataset of the same config and `raw` only has new arrival units beside the files it was made from, these
    are appended; `anew` builds from scratch all the same. Rows later than a day after `now_ms` (the clock) are set aside.
    With `until`, only arrival units of days up to this one are read, by the dates in their names. Rows of the users `without`
    are passed over; what the dataset holds of them already is not touched.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is not a folder: name the folder of the raw logs with --data")
    pieces = data.events.list_pieces(raw) if until is None else _until(data, raw, until)
    declared = data.model_dump(mode="json")
    data = _with_time_unit(data, pieces)
    inputs, stats = fingerprints(data, pieces, raw, out, anew=anew)
    before, how = previous(data, declared, pieces, inputs, out, anew=anew)
    if before.folder is not None and inputs == before.manifest["inputs"]:
        return dict(before.manifest)
    new = require_alike([*pieces[:1], *pieces[max(1, len(before.pieces)) :]])[min(1, len(before.pieces)) :]
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        # named so that `write_artefact` clears away what a killed run left
        tempfile.TemporaryDirectory(prefix=f".{out.name}.spill-", suffix=f".{os.getpid()}.tmp", dir=out.parent) as scratch,
        write_artefact(
            out, "dataset", inputs=inputs, config=declared, tasks=data.events.tasks,
            targets=[name for name in data.events.labels if name not in data.events.tasks], dense=list(data.features),
            context=list(data.events.context), has_time=data.events.has_time, stats=stats, polars=pl.__version__,
            pieces=[piece.name for piece in pieces],
        ) as (folder, manifest),
        engine.open() as pool,
    ):  # fmt: skip
        run = _Run(
            data, raw, Path(scratch), before, pool, progress, _clock_ms() if now_ms is None else now_ms, manifest["pieces"],
            frozenset(without),
        )  # fmt: skip
        work = run(new)
        finish(data, work, before, folder, manifest)
        manifest["data_fingerprint"] = fingerprint([inputs, manifest["config"]])
        manifest["report"] = {"built": how, **manifest["report"]}
    return manifest


def _until(data: Data, raw: Path, until: date) -> list[Piece]:
    if data.events.arrives == "together":
        raise InputError(
            f"data.events.arrives is together, and a log that is read up to {until} arrives day by day: set it to by_folder or "
            "by_file"
        )
    return up_to(data.events.list_pieces(raw), until)


def _with_time_unit(data: Data, pieces: list[Piece]) -> Data:
    """With the unit that the first rows show where `events.time_unit` is auto."""
    if data.events.time_unit != "auto":
        return data
    check_expressions(pieces[0].scan(), data.events.expressions, pieces[0].location)
    with pieces[0].reading():
        unit = infer_time_unit(pieces[0].scan().head(SAMPLE_ROWS).collect(), data.events)
    return data.model_copy(update={"events": data.events.model_copy(update={"time_unit": unit})})


@dataclass(frozen=True)
class _Run:
    """One run of all tasks over new pieces."""

    data: Data
    raw: Path
    scratch: Path
    before: Before
    pool: Pool
    progress: Progress | None
    now_ms: int
    pieces: list[str]
    without: frozenset[str]

    def __call__(self, pieces: list[Piece]) -> Work:
        units = [*self.before.units, *dict.fromkeys(piece.unit for piece in pieces)]
        ingested = self._ingest(pieces, units)
        newest_ms = self._newest_ms(ingested, len(units))
        columns = [USER, ITEM, *map(context, self.data.events.context)]
        places = place_values(ingested, columns, self.before)
        with ThreadPoolExecutor(1) as thread:  # beside the work on rows
            hashing = thread.submit(hash_places, places, self.before)
            settled = self._settle(ingested, newest_ms)
            hash_of = hashing.result()
        self._check(ingested, settled)
        if has_sessions(self.data):
            cut_into_sessions(settled, places)
            hash_of = hash_places(places, self.before)
        values = dict(places)
        ids, rows_dropped = number_values(values, hash_of, settled, self.before, self.data.filters, self.scratch)
        tables = self._tables(ids)
        cuts_ms = self._cuts_ms(settled)
        with ThreadPoolExecutor(1) as thread:  # beside the work on new rows
            sizes = (FIRST_ID + len(values[USER]), FIRST_ID + len(values[ITEM]))
            counts = thread.submit(counts_before, self.before, *sizes, cuts_ms, self.scratch)
            num_parts = self._count_features(settled, newest_ms[-1])
            shaped = self._shape(settled, cuts_ms, newest_ms[-1], num_parts)
        self._check_parts(shaped)
        return Work(
            scratch=self.scratch, places=places, values=values, tables=tables, ingested=ingested, settled=settled,
            shaped=shaped, states=self._states(num_parts), counts_before=counts.result(), rows_dropped=rows_dropped,
            cuts_ms=cuts_ms, newest_ms=newest_ms[-1], units=units,
        )  # fmt: skip

    def _ingest(self, pieces: list[Piece], units: list[str]) -> list[Ingested]:
        size = [piece.bytes * (8 if piece.format in ("parquet", "delta") else 1) for piece in pieces]
        shards = self.data.shards or max(1, math.ceil(sum(size) / SHARD_BYTES))
        if self.before.folder is not None and self.data.features:
            shards = 1  # the counts so far are one state, which shards would each have to take their keys from
        task_N = np.cumsum(size) // TASK_BYTES
        tasks: list[IngestTask] = []
        for number in dict.fromkeys(task_N.tolist()):
            chosen = tuple(
                (len(self.before.pieces) + place, units.index(pieces[place].unit), pieces[place])
                for place in np.flatnonzero(task_N == number).tolist()
            )
            folder = self.scratch / f"ingest-{len(tasks):06d}"
            tasks.append(IngestTask(self.data.events, chosen, shards, folder, self.now_ms, self.without))
        return self.pool.map(ingest, tasks, name="read and validate", progress=self.progress)

    def _newest_ms(self, ingested: list[Ingested], num_units: int) -> list[int]:
        """Of every arrival unit the newest time of it and those before it."""
        if self.data.events.time is None:
            return [self._begins(ingested)[-1] - 1]
        newest_A = np.full(num_units, LONG_AGO_MS)
        if self.before.folder is not None:
            newest_A[len(self.before.units) - 1] = self.before.manifest["newest_ms"]
        for found in ingested:
            for arrival, newest in found.newest_ms.items():
                newest_A[arrival] = max(newest_A[arrival], newest)
        known: list[int] = []
        for newest in newest_A.tolist():  # late rows are moved to just after the unit before
            known.append(max(newest, known[-1] + (newest > LONG_AGO_MS)) if known else newest)
        return known

    def _begins(self, ingested: list[Ingested]) -> tuple[int, ...]:
        """Where rows stand in for times: of each file its first row's number among all rows, and how many there are."""
        if self.data.events.time is not None:
            return ()
        rows = {number: count for found in ingested for number, count in found.rows.items()}
        return (0, *np.cumsum([rows.get(number, 0) for number in range(len(self.pieces))]).tolist())

    def _settle(self, ingested: list[Ingested], newest_ms: list[int]) -> list[Settled]:
        shards = sorted({shard for found in ingested for shard in found.shards})
        lateness = None
        if self.data.events.arrives != "together":
            earliest_ms = (LONG_AGO_MS, *(newest + 1 for newest in newest_ms[:-1]))
            lateness = Lateness(earliest_ms, newest_ms[-1], self.data.events.max_lateness, self.before.recent)
        tasks = []
        for shard in shards:
            folders = [found.folder for found in ingested if spill(found.folder, shard).exists()]
            spills = tuple(spill(folder, shard) for folder in folders)
            tasks.append(SettleTask(
                self.data, spills, tuple(folders), lateness, newest_ms[-1], self._begins(ingested)[:-1],
                self.scratch / f"settled-{shard:04d}.arrow",
            ))  # fmt: skip
        return self.pool.map(settle, tasks, name="sort and check", progress=self.progress)

    def _check(self, ingested: list[Ingested], settled: list[Settled]) -> None:
        """Stop where the log is not usable. Raises InputError."""
        path, events = self.raw / self.data.events.path, self.data.events
        rows = sum(found.rows_read for found in ingested)
        if not rows:
            if self.before.folder is not None:  # nothing new but a table, or an empty file
                return
            raise InputError(f"{path} has no rows: point `data.events.path` at a log with events")
        bad = all_bad(ingested, settled)
        stop_where_too_bad(path, bad, rows, self.data.filters.max_bad_share, may_be_none=self.before.folder is not None)
        if not any(found.history_rows for found in ingested) and self.before.folder is None:
            raise InputError(
                f"{path}: no good row satisfies history = {events.history!r}, so every timeline is empty: change it"
            )

    def _check_parts(self, shaped: list[Shaped]) -> None:
        """Stop where a dataset would lack a task. Raises InputError."""
        if self.before.folder is not None:
            return
        path, events = self.raw / self.data.events.path, self.data.events
        check_timeline_left(path, sum(part.events for part in shaped))
        for task in events.labels:
            if not sum(part.tasks[task][0] for part in shaped):
                text = events.labels[task]
                open_yet = ", or wait: a label is known once its `within` has passed" if isinstance(text, Within) else ""
                raise InputError(f"{path}: labels.{task} = {text!r} is null in every row: mend or remove it{open_yet}")

    def _cuts_ms(self, settled: list[Settled]) -> tuple[int, int] | None:
        """The moments of a split by time."""
        if not isinstance(self.data.split, GlobalTime):
            return None

        def times() -> Iterator[np.ndarray]:
            yield from self.before.times()
            for found in settled:
                yield dense_rows(found.out, self.scratch).filter(IN_HISTORY)[TIME_MS].to_numpy()

        return self.data.split.cuts(times)

    def _tables(self, ids: dict[str, pl.DataFrame]) -> Tables:
        """The user and item tables, with what rows look up in them laid into `scratch`."""
        tables = read_tables(self.data, self.raw, ids, self.before)
        for feature in tables.features:
            if feature.multi_valued and feature.name in needs(self.data.features)[0]:
                raise InputError(f"features: by {feature.name!r} holds lists, and a key needs one value: name another feature")
            if not feature.multi_valued:
                np.save(
                    code_file(self.scratch, feature.name), tables.frames[feature.owner][f"feature_{feature.name}"].to_numpy()
                )
        for owner, versions in tables.versions.items():
            write_arrow(versions, slow_table(self.scratch, owner))
        return tables

    def _count_features(self, settled: list[Settled], newest_ms: int) -> int:
        """Point-in-time features of all rows, into `scratch`. Returns in how many parts the keys were counted."""
        parts, rows = len(settled), tuple(found.out for found in settled)
        if self.data.features:
            spreads = [SpreadTask(self.data, path, self.scratch, i, parts, self.scratch) for i, path in enumerate(rows)]
            self.pool.map(spread, spreads, name="send rows to their keys", progress=self.progress)
            tallies = [
                TallyTask(self.data, group, part, rows, self.scratch, self._state_before(group), newest_ms, self.scratch)
                for group in range(len(groups(self.data)))
                for part in range(parts)
            ]
            self.pool.map(tally, tallies, name="point-in-time features", progress=self.progress)
        return parts

    def _state_before(self, group: int) -> Path | None:
        return None if self.before.folder is None else self.before.feature_state(group)

    def _states(self, num_parts: int) -> list[Path]:
        """Files with what the point-in-time features of each key go on from, when more rows arrive and in requests."""
        found = []
        for group in range(len(groups(self.data))):
            files = [state_file(self.scratch, group, part) for part in range(num_parts)] or [self.before.feature_state(group)]
            if len(files) > 1:
                whole = merged([State.load(file) for file in files])
                files = [self.scratch / f"state-{group}.npz"]
                whole.save(files[0])
            found += files
        return found

    def _shape(self, settled: list[Settled], cuts_ms: tuple[int, int] | None, newest_ms: int, num_parts: int) -> list[Shaped]:
        if self.before.folder is not None:
            size = int(np.load(id_file(self.scratch, USER)).max()) + 1
            np.save(self.scratch / LENGTH_BEFORE, self.before.count(USER, LENGTH, size))
        tasks = [
            ShapeTask(
                self.data, found.out, self.scratch, i, num_parts, cuts_ms, newest_ms, {}, self.scratch / f"shaped-{i:04d}"
            )
            for i, found in enumerate(settled)
        ]
        if isinstance(self.data.split, GivenFiles):
            np.save(self.scratch / GIVEN, np.array(self.data.split.given(self.pieces), np.int8))
        fitted = [name for name, spec in self.data.events.made_labels.items() if spec.is_fitted]
        if fitted:
            parts = self.pool.map(fit_labels, tasks, name="fit labels", progress=self.progress)
            known = {name: Histogram.merge([part[name] for part in parts]) for name in fitted}
            tasks = [replace(task, fitted=known) for task in tasks]
        return self.pool.map(shape, tasks, name="positions, labels, split", progress=self.progress)


def _clock_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
