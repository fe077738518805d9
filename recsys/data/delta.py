"""Delta Lake tables, read at the version they had when they were listed. Needs the package deltalake."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.check import first_line
from recsys.errors import InputError

LOG_FOLDER = "_delta_log"
LOG_FILE = re.compile(r"[0-9]{20}\.(json|checkpoint.*\.parquet)")


@dataclass(frozen=True)
class Version:
    """A state of a table."""

    id: str
    number: int


def is_table(folder: Path) -> bool:
    return (folder / LOG_FOLDER).is_dir() and any(LOG_FILE.fullmatch(file.name) for file in (folder / LOG_FOLDER).iterdir())


def latest(location: str) -> tuple[Version, int]:
    """The present version of a table and its size in bytes."""
    table = _table(location)
    sizes = table.get_add_actions()["size_bytes"]
    return Version(str(table.metadata().id), int(table.version())), sum(sizes.to_pylist())


def scan(location: str, version: Version) -> pl.LazyFrame:
    """Its rows, in the order of its log. Raises InputError when the table was replaced by another."""
    table = _table(location, version.number)
    if str(table.metadata().id) != version.id:
        raise InputError(f"{location} is another Delta table than when it was listed: run again")
    return pl.scan_delta(table)


def _table(location: str, version: int | None = None) -> Any:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise InputError(f"{location} is a Delta table: install its reader with `pip install recsys[delta]`") from error
    try:
        return DeltaTable(location, version=version)
    except (DeltaError, OSError) as error:
        raise InputError(
            f"{location} cannot be read as a Delta table ({first_line(error)}): name the folder that holds {LOG_FOLDER}, or "
            "files by their suffix, as in /*.parquet"
        ) from error
