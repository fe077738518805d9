"""Read the user and item tables, set bad rows aside, and say how many there were and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.columns import ITEM, USER
from recsys.data import Data
from recsys.data.before import Before
from recsys.data.check import check_expressions
from recsys.data.rules import REASON, Broken
from recsys.data.sessions import has_sessions, users_of
from recsys.data.source import Source, Table
from recsys.data.tables import KEY, Feature, canonical_table, encode_table, encode_versions, one_row_per_id
from recsys.data.vocabulary import VALUE
from recsys.errors import InputError


@dataclass(frozen=True)
class Tables:
    """The user and item tables by owner, row = dense id, and what is known of their features."""

    frames: dict[str, pl.DataFrame]
    features: list[Feature]
    versions: dict[str, pl.DataFrame]  # owner -> all rows of a slowly changing table, with dense ids and codes
    quarantine: dict[str, pl.DataFrame]
    report: dict[str, Any]


def read_tables(data: Data, raw: Path, ids: Mapping[str, pl.DataFrame], before: Before) -> Tables:
    """Read both tables for the external ids, with their arrival, in the order of their dense ids. Raises InputError."""
    tables = Tables({}, [], {}, {}, {})
    for owner, source in ((USER, data.users), (ITEM, data.items)):
        rows, key = None, ids[owner][VALUE]
        if owner == USER and has_sessions(data):
            key = users_of(key)
        if source is not None:
            good, tables.quarantine[f"{owner}s"], report = _clean_table(source, raw, data.filters.max_bad_share)
            rows = one_row_per_id(good.lazy(), changes=source.changes).collect()
            report["rows_of_repeated_ids"] = len(good) - len(rows)
            report["ids_of_events_without_row"] = int((~key.is_in(rows[KEY].implode())).sum())
            tables.report[f"{owner}_table"] = report
        tables.frames[owner], found = encode_table(
            ids[owner], key, owner, rows, before, good if source and source.changes else None
        )
        tables.features.extend(found)
        if source is not None and source.changes:
            for feature in found:
                if feature.multi_valued:
                    raise InputError(
                        f"{raw / source.path}: feature {feature.name!r} holds lists, and with event_time an id has one value "
                        "at a time: take one of them, or leave event_time out"
                    )
            tables.versions[owner] = encode_versions(good, key, found)
    return tables


def _clean_table(table: Table, raw: Path, max_bad_share: float) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Good rows, quarantined rows with reasons, and the counts of both."""
    source, path = table.scan(raw), raw / table.path
    check_expressions(source, table.expressions, table.files(raw)[0])
    marked = _collect(canonical_table(source, table=table), table, raw)
    if marked.is_empty():
        raise InputError(f"{path} has no rows: point `path` at a table with rows, or leave the table out of the config")
    quarantine, reasons = _quarantined(marked, path, max_bad_share)
    report = {"rows_read": len(marked), "rows_quarantined": len(quarantine), "quarantined_by_reason": reasons}
    return marked.filter(pl.col(REASON).is_null()), quarantine, report


def _collect(frame: pl.LazyFrame, source: Source, raw: Path) -> pl.DataFrame:
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise source.unreadable(source.files(raw), error) from error


def _quarantined(marked: pl.DataFrame, path: Path, max_bad_share: float) -> tuple[pl.DataFrame, dict[str, int]]:
    """The rows with a reason, and how many each reason has. Raises InputError when they are too large a share of all."""
    bad = marked.filter(pl.col(REASON).is_not_null())
    broken = Counter({("", reason): count for reason, count in bad[REASON].value_counts().iter_rows()})
    stop_where_too_bad(path, broken, len(marked), max_bad_share)
    return bad, by_reason(broken)


def stop_where_too_bad(
    path: Path, broken: Counter[Broken], rows: int, max_bad_share: float, *, may_be_none: bool = False
) -> None:
    """Raise InputError with the most frequent reasons where bad rows are too large a share of all, or all there are."""
    bad = broken.total()
    share = bad / max(1, rows)
    if share > max_bad_share or (bad == rows and not may_be_none):
        shown = "; ".join(f"{reason}: {count:,}" for reason, count in list(by_reason(broken).items())[:3])
        limit = f"more than filters.max_bad_share {max_bad_share}" if share > max_bad_share else "which leaves none"
        raise InputError(
            f"{path}: {share:.1%} of {rows:,} rows are bad ({shown}), {limit}: mend the files or the `data` section"
            + (", or raise the limit" if share < 1 else "")
        )


def by_reason(broken: Counter[Broken]) -> dict[str, int]:
    """The most frequent first."""
    counts = Counter[str]()
    for (_, reason), count in broken.items():
        counts[reason] += count
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))
