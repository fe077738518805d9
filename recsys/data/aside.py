"""Rows that broke a rule, with the rule, the reason and where they stood."""

from pathlib import Path

import polars as pl
import polars.selectors as cs

from recsys.columns import (
    ARRIVAL,
    CONTEXT_PREFIX,
    ITEM,
    ITEM_ID,
    RAW,
    ROW,
    USER,
    USER_ID,
)  # fmt: skip
from recsys.data.arrow import read_arrow
from recsys.data.before import Before, link_file
from recsys.data.ingest import QUARANTINE, ROW_BITS
from recsys.data.rules import REASON, RULE
from recsys.data.work import Work


def set_aside(work: Work, before: Before, pieces: list[str], folder: Path, kept: dict[str, str]) -> None:
    """All rows set aside, with rule, reason and where they stood; an append adds a file."""
    old = [name for name in before.manifest.get("files", {}) if name.startswith(f"{QUARANTINE}/events")]
    for name in old:
        link_file(before, name, folder.parent, kept)
    parts = [path for found in work.ingested for path in sorted((found.folder / QUARANTINE).glob("*.parquet"))]
    frames = [pl.scan_parquet(path) for path in parts]
    frames += [_named(read_arrow(found.quarantine), work, pieces).lazy() for found in work.settled if found.quarantine.exists()]
    if frames:
        folder.mkdir(exist_ok=True)
        leading = [RULE, REASON, "source_file", "source_row"]
        events = pl.concat(frames, how="diagonal").rename({ROW: "source_row"})
        rest = [name for name in events.collect_schema().names() if name not in leading]
        events.select(*leading, *rest).sink_parquet(folder / (f"events-{len(old):03d}.parquet" if old else "events.parquet"))
    for name, frame in work.tables.quarantine.items():
        if len(frame):
            folder.mkdir(exist_ok=True)
            frame.rename({ROW: "source_row"}).write_parquet(folder / f"{name}.parquet")


def _named(bad: pl.DataFrame, work: Work, pieces: list[str]) -> pl.DataFrame:
    """Rows that a shard set aside, with external ids and their place in a file in place of numbers."""
    ids = {USER: USER_ID, ITEM: ITEM_ID}
    names = [work.places[name].gather(bad[name]).alias(text) for name, text in ids.items()]
    file = pl.Series("source_file", pieces).gather(bad[ROW] // (1 << ROW_BITS))
    return bad.drop(USER, ITEM, cs.starts_with(CONTEXT_PREFIX), cs.by_name(ARRIVAL, RAW, require_all=False)).with_columns(
        *names, file, pl.col(ROW) % (1 << ROW_BITS)
    )
