"""The log that grows under a loop: days that the world's own policy served, then days of what the endpoint showed.

A day's folder comes whole or not at all: it is written aside and renamed.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from recsys.simulate import Simulation
from recsys.simulate.days import Visits, visited
from recsys.simulate.files import Files, write
from recsys.simulate.log import impressions


def write_warm_up(spec: Simulation, files: Files, raw: Path, *, days: int, marker: str | None) -> None:
    """Tables and the first days, as `simulate` writes them. What is there already stays."""
    if not (raw / "users.parquet").exists():
        files.write_tables(raw)
    parts: list[tuple[Visits, pl.DataFrame]] = []
    for each in visited(spec, files.world):
        if each.day >= days:
            break
        if not (raw / files.part(each)).exists():
            table, _ = impressions(spec, each.world, each.taste_UD, each.user_R, each.focus_R, each.time_R, each.rng)
            parts.append((each, table))
        if each.chunk == each.chunks - 1 and parts:
            write_day(files, raw, parts, marker=marker)
            parts = []


def write_day(files: Files, raw: Path, parts: Iterable[tuple[Visits, pl.DataFrame]], *, marker: str | None) -> Path:
    """The folder of one day from the rows of all its parts; with an empty `marker` file where that says that it is whole."""
    parts = list(parts)
    day = (raw / files.part(parts[0][0])).parent
    scratch = raw / f".arriving-{day.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    for visits, rows in parts:
        write(files.named(rows, visits), scratch / Path(files.part(visits)).name)
    if marker is not None:
        (scratch / marker).touch()
    day.parent.mkdir(parents=True, exist_ok=True)
    return scratch.rename(day)
