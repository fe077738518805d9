"""Read delimited text. Nothing is guessed: columns stay text unless their type is declared, and a bad row says why."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recsys.errors import InputError

TYPES = {"int": pl.Int64, "float": pl.Float64}
TEXT_SUFFIXES = (".csv", ".tsv", ".dat", ".txt", ".inter", ".data")

# Columns that a scan adds to those of the source.
PLACE = "_place"  # of a row in the source: all rows of all files, from 0
UNREADABLE = "_unreadable"  # why a row could not be read, null where it could
SURPLUS = "_surplus"  # takes the first field too many

Encoding = Literal["utf8", "latin-1"]
Kind = Literal["text", "int", "float"]


def scan_text(
    files: list[Path], *, separator: str, header: bool, columns: Mapping[str, Kind], encoding: Encoding
) -> pl.LazyFrame:
    """All rows of the files with typed columns and `UNREADABLE`. Empty fields and those missing at a row's end are null."""
    if len(separator) == 1:
        frame = _split_by_character(files, separator, header, columns, encoding)
    elif header or not columns:
        raise InputError(f"{files[0]}: with the separator {separator!r} set `header: false` and list `columns`")
    else:
        frame = _split_by_text(files, separator, list(columns), encoding)
    return _typed(frame, columns, files[0])


def _split_by_character(
    files: list[Path], separator: str, header: bool, columns: Mapping[str, Kind], encoding: Encoding
) -> pl.LazyFrame:
    names = _header(files, separator, encoding) if header else list(columns)
    if not names:
        raise InputError(f"{files[0]}: with `header: false` list `columns` in their order")
    # One column more than the file has: empty in a well-formed row. Without it Polars stops at a row that is too long.
    frame = pl.scan_csv(
        _sources(files, encoding), separator=separator, has_header=header, schema=dict.fromkeys([*names, SURPLUS], pl.String),
        missing_columns="insert", extra_columns="ignore", truncate_ragged_lines=True, **_options(encoding),
    )  # fmt: skip
    too_long = pl.when(pl.col(SURPLUS).str.len_bytes() > 0).then(pl.lit(f"row has more than {len(names)} fields"))
    return frame.select(*names, too_long.alias(UNREADABLE))


def _split_by_text(files: list[Path], separator: str, names: list[str], encoding: Encoding) -> pl.LazyFrame:
    lines = pl.scan_csv(
        _sources(files, encoding),
        separator="\x1f",
        quote_char=None,
        has_header=False,
        schema={"line": pl.String},
        **_options(encoding),
    )
    fields = pl.col("line").str.split(separator)
    reason = pl.when(fields.list.len() != len(names)).then(pl.lit(f"row does not have {len(names)} fields"))
    picked = [fields.list.get(i, null_on_oob=True).alias(name) for i, name in enumerate(names)]
    return lines.select(*picked, reason.alias(UNREADABLE))


def _header(files: list[Path], separator: str, encoding: Encoding) -> list[str]:
    """The column names, which all files share. Raises InputError where one file differs or a name stands twice."""
    first: list[str] = []
    for file in files:
        scanned = pl.scan_csv(_sources([file], encoding), separator=separator, infer_schema=False, **_options(encoding))
        names = scanned.collect_schema().names()
        for name in names:
            if "_duplicated_" in name and name.rsplit("_duplicated_", 1)[0] in names:
                raise InputError(
                    f"{file} has two columns named {name.rsplit('_duplicated_', 1)[0]!r}: rename one in its header"
                )
        if first and names != first:
            raise InputError(
                f"{file} has the columns [{', '.join(names)}] where {files[0]} has [{', '.join(first)}]: make them the same"
            )
        first = names
    return first


def _typed(frame: pl.LazyFrame, columns: Mapping[str, Kind], file: Path) -> pl.LazyFrame:
    """Cast declared columns; a value that does not fit makes its row unreadable instead of stopping the run."""
    names = [name for name in frame.collect_schema().names() if name != UNREADABLE]
    for name in columns:
        if name not in names:
            raise InputError(f"{file} has no column {name!r}, which `columns` lists: name some of [{', '.join(names)}]")
    present = {name: pl.when(pl.col(name).str.len_bytes() > 0).then(pl.col(name)) for name in names}
    numbers = {name: TYPES[kind] for name, kind in columns.items() if kind != "text"}
    casts = {name: present[name].str.strip_chars().cast(kind, strict=False) for name, kind in numbers.items()}
    reasons = [
        pl.when(cast.is_null() & present[name].is_not_null()).then(pl.lit(f"{name} is not a number"))
        for name, cast in casts.items()
    ]
    values = present | casts
    return frame.select(
        *[values[name].alias(name) for name in names], pl.coalesce(pl.col(UNREADABLE), *reasons).alias(UNREADABLE)
    )


def _sources(files: list[Path], encoding: Encoding) -> Any:
    """What Polars opens: it reads UTF-8 only, so that files of another encoding are decoded in memory."""
    if encoding == "utf8":
        return files
    return [io.BytesIO(file.read_bytes().decode(encoding).encode()) for file in files]


def _options(encoding: Encoding) -> dict[str, Any]:
    # Bytes that are not UTF-8 become U+FFFD, which the quarantine looks for in ids.
    return {"empty_string_is_null": False, "encoding": "utf8-lossy" if encoding == "utf8" else "utf8"}
