"""Read a day's raw files as `prepare` reads them, chunk by chunk, and count. Shapes: N = rows of a chunk.

Memory is that of the day's distinct ids, and 24 bytes a row, by which users are looked at one by one.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.monitor.arrived import Arrived, file_stats
from pipelines.monitor.bots import clock, machines
from pipelines.monitor.files import ends_within_a_line
from pipelines.monitor.histograms import column_bins, count, feature_bins, per_id, shortened
from recsys.artefact import fingerprint
from recsys.columns import ITEM, ITEM_ID, ROW, TIME_MS, USER, USER_ID
from recsys.daily_config import DailyConfig
from recsys.data import Data
from recsys.data.alike import require_alike
from recsys.data.canonical import canonicalise, clean
from recsys.data.check import check_expressions
from recsys.data.ingest import CHUNK_ROWS
from recsys.data.labels import value_columns
from recsys.data.moment import infer_time_unit
from recsys.data.piece import Piece
from recsys.data.rules import REASON, split_bad
from recsys.data.source import Events
from recsys.data.tables import canonical_table, one_row_per_id
from recsys.data.text import PLACE, UNREADABLE
from recsys.duration import DAY_MS
from recsys.errors import InputError

SAMPLE_ROWS = 10_000  # that show the unit of time


def measure(data: Data, rules: DailyConfig, raw: Path, pieces: Sequence[Piece], like: Piece | None, day: date) -> Arrived:
    """What the day's files hold. Raises InputError where they cannot be read, or have other columns than `like`."""
    stats = file_stats(pieces)
    pieces = require_alike([like, *pieces])[1:] if like is not None else require_alike(list(pieces))
    events = _with_time_unit(data.events, like or pieces[0])
    tally = _Tally(events, _begin_ms(day, rules.utc_offset_hours))
    for piece in pieces:
        tally.read(piece)
    if file_stats(pieces) != stats:
        raise InputError(f"{Path(pieces[0].location).parent} changed while it was read: wait until the day is whole")
    units: dict[str, list[str]] = {}
    for piece in pieces:
        units.setdefault(piece.unit, []).append(piece.fingerprint())
    return tally.finish(data, rules, raw, day, units, stats, pieces[0])


class _Tally:
    """Sums over chunks."""

    def __init__(self, events: Events, begin_ms: int):
        self._events, self._begin_ms = events, begin_ms
        self._bins = column_bins(events)
        self._columns: dict[str, Counter[str]] = {name: Counter() for name in self._bins}
        self._bad = Counter[str]()
        self._thin: list[pl.DataFrame] = []
        self._ids: dict[str, list[pl.DataFrame]] = {USER_ID: [], ITEM_ID: []}
        self._hash_sum, self._rows = 0, 0

    def read(self, piece: Piece) -> None:
        scan = piece.scan()
        check_expressions(scan, self._events.expressions, piece.location)
        canonical = canonicalise(scan, events=self._events).with_columns(clean(pl.col(USER_ID)), clean(pl.col(ITEM_ID)))
        last_is_bad = False
        with piece.reading():
            for chunk in canonical.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True):
                bad = self._add(chunk)
                if len(chunk):
                    last_is_bad = bool(len(bad)) and bad[ROW].max() == chunk[ROW].max()
        if last_is_bad and ends_within_a_line(piece):
            raise InputError(f"{piece.location} ends within a line, as while it is written: wait until it is whole")

    def _add(self, chunk: pl.DataFrame) -> pl.DataFrame:
        events = self._events
        names = [name.removeprefix("value_") for name in value_columns(events.labels)]
        good, bad = split_bad(
            chunk, labels=list(events.plain_labels), contexts=list(events.context), values=names, has_time=events.has_time
        )
        self._rows += len(chunk)
        self._bad.update(dict(bad[REASON].value_counts().iter_rows()))
        for name, found in count(good, self._bins).items():
            self._columns[name].update(found)
        # The time of day stands for the moment, so that a day that comes again under another date is known again.
        hashed = chunk.with_columns(pl.col(TIME_MS) % DAY_MS).select(pl.struct(pl.exclude(ROW, UNREADABLE)).hash())
        self._hash_sum += int(hashed.to_series().to_numpy().sum(dtype=np.uint64))
        self._thin.append(good.select(pl.col(USER_ID).hash().alias(USER), pl.col(ITEM_ID).hash().alias(ITEM), TIME_MS))
        for name, counts in self._ids.items():
            counts.append(good.group_by(pl.col(name).alias("id")).agg(rows=pl.len()))
        return bad

    def finish(
        self, data: Data, rules: DailyConfig, raw: Path, day: date, units: dict[str, list[str]],
        stats: dict[str, list[int]], first: Piece,
    ) -> Arrived:  # fmt: skip
        rows = (
            pl.concat(self._thin) if self._thin else pl.DataFrame(schema={USER: pl.UInt64, ITEM: pl.UInt64, TIME_MS: pl.Int64})
        )
        found = machines(rows, events_per_day=rules.bot_events_per_day, clock_ms=clock(rows, self._events.time_unit))
        inside = pl.col(TIME_MS).is_between(self._begin_ms, self._begin_ms + DAY_MS, closed="left")
        counts = {name: _summed(parts) for name, parts in self._ids.items()}
        columns = {name: shortened(each) for name, each in self._columns.items()}
        columns |= {"rows per user": per_id(counts[USER_ID]["rows"]), "rows per item": per_id(counts[ITEM_ID]["rows"])}
        for owner, table, name in (("user", data.users, USER_ID), ("item", data.items, ITEM_ID)):
            if table is not None and table.features:
                by_id = one_row_per_id(canonical_table(table.scan(raw), table=table), changes=table.changes).collect()
                columns |= dict(feature_bins(by_id, counts[name], owner))
        return Arrived(
            day=day.isoformat(), units={unit: fingerprint(hashes) for unit, hashes in units.items()}, stats=stats,
            schema={name: str(dtype) for name, dtype in first.schema().items() if name not in (PLACE, UNREADABLE)},
            content=f"{self._hash_sum % 2**64:016x}-{self._rows}", rows=self._rows,
            bad=dict(sorted(self._bad.items(), key=lambda each: (-each[1], each[0]))),
            users=len(counts[USER_ID]), items=len(counts[ITEM_ID]),
            outside=len(rows) - int(rows.select(inside.sum()).item()),
            first_ms=_as_int(rows[TIME_MS].min()), last_ms=_as_int(rows[TIME_MS].max()),
            bots=dict(found["rule"].value_counts().sort("rule").iter_rows()),
            bot_rows=len(rows.join(found, on=USER, how="semi")), columns=columns,
        )  # fmt: skip


def _summed(parts: list[pl.DataFrame]) -> pl.DataFrame:
    if not parts:
        return pl.DataFrame(schema={"id": pl.String, "rows": pl.UInt32})
    return pl.concat(parts).group_by("id").agg(pl.col("rows").sum())


def _with_time_unit(events: Events, piece: Piece) -> Events:
    """With the unit that the first rows show where `time_unit` is auto."""
    if events.time_unit != "auto":
        return events
    check_expressions(piece.scan(), events.expressions, piece.location)
    with piece.reading():
        unit = infer_time_unit(piece.scan().head(SAMPLE_ROWS).collect(), events)
    return events.model_copy(update={"time_unit": unit})


def _begin_ms(day: date, utc_offset_hours: float) -> int:
    begin = datetime.combine(day, time(), UTC) - timedelta(hours=utc_offset_hours)
    return round(begin.timestamp() * 1000)


def _as_int(value: object) -> int | None:
    return None if value is None else int(str(value))
