"""Read delimited text. Nothing is guessed: columns stay text unless their type is declared, and a bad row says why."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from recsys.data.location import COMPRESSIONS, is_url
from recsys.errors import InputError

TYPES = {"int": pl.Int64, "float": pl.Float64}
HEAD_BYTES = 1 << 20  # enough for any first line

# Columns that a scan adds to those of the source.
PLACE = "_place"  # of a row in what is scanned, from 0
UNREADABLE = "_unreadable"  # why a row could not be read, null where it could
SURPLUS = "_surplus"  # takes the first field too many

# Bytes that are not UTF-8 become U+FFFD, which the quarantine looks for in ids.
OPTIONS: dict[str, Any] = {"empty_string_is_null": False, "encoding": "utf8-lossy", "glob": False}

Encoding = Literal["utf8", "latin-1"]
Kind = Literal["text", "int", "float"]


def scan_text(
    file: str, *, separator: str, header: bool, columns: Mapping[str, Kind], encoding: Encoding, quotes: bool
) -> pl.LazyFrame:
    """All rows of a file or URL, compressed or not, with typed columns and `UNREADABLE`.

    Empty fields and those missing at a row's end are null.
    """
    dialect = {**OPTIONS, "separator": separator, "quote_char": '"' if quotes else None}
    if len(separator) == 1:
        names = _header(file, encoding, dialect) if header else list(columns)
        if not names:
            raise InputError(f"{file}: with `header: false` list `columns` in their order")
    elif header or not columns:
        raise InputError(f"{file}: with the separator {separator!r} set `header: false` and list `columns`")
    else:
        names = list(columns)
    _require_declared(file, columns, names)

    def scan(source: str) -> pl.LazyFrame:
        if len(separator) == 1:
            frame = _split_by_character(source, header, names, dialect)
        else:
            frame = _split_by_text(source, separator, names)
        return cast_declared(frame, columns, names)

    return scan(file) if encoding == "utf8" else _scan_decoded(file, encoding, scan, names, columns)


def _header(file: str, encoding: Encoding, dialect: dict[str, Any]) -> list[str]:
    """The column names in the first line. Raises InputError where one stands twice."""
    source: Any = file
    if encoding != "utf8":
        with _decoder(file, encoding) as stream:
            source = stream.read(HEAD_BYTES)
    names = pl.scan_csv(source, infer_schema=False, **dialect).collect_schema().names()
    for name in names:
        if "_duplicated_" in name and name.rsplit("_duplicated_", 1)[0] in names:
            raise InputError(f"{file} has two columns named {name.rsplit('_duplicated_', 1)[0]!r}: rename one in its header")
    return names


def cast_declared(frame: pl.LazyFrame, columns: Mapping[str, Kind], texts: list[str]) -> pl.LazyFrame:
    """Make empty text null and cast declared columns; a value that does not fit its type makes its row unreadable."""
    present = {name: pl.when(pl.col(name).str.len_bytes() > 0).then(pl.col(name)) for name in texts}
    casts = {
        name: present[name].str.strip_chars().cast(TYPES[kind], strict=False)
        for name, kind in columns.items() if kind != "text"
    }  # fmt: skip
    reasons = [
        pl.when(cast.is_null() & present[name].is_not_null()).then(pl.lit(f"{name} is not a number"))
        for name, cast in casts.items()
    ]
    values = present | casts
    return frame.with_columns(
        *[value.alias(name) for name, value in values.items()], pl.coalesce(pl.col(UNREADABLE), *reasons).alias(UNREADABLE)
    )


def _require_declared(file: str, columns: Mapping[str, Kind], names: list[str]) -> None:
    for name in columns:
        if name not in names:
            raise InputError(f"{file} has no column {name!r}, which `columns` lists: name some of [{', '.join(names)}]")


def _split_by_character(source: str, header: bool, names: list[str], dialect: dict[str, Any]) -> pl.LazyFrame:
    # One column more than the file has: empty in a well-formed row. Without it Polars stops at a row that is too long.
    frame = pl.scan_csv(
        source, has_header=header, schema=dict.fromkeys([*names, SURPLUS], pl.String),
        missing_columns="insert", extra_columns="ignore", truncate_ragged_lines=True, **dialect,
    )  # fmt: skip
    too_long = pl.when(pl.col(SURPLUS).str.len_bytes() > 0).then(pl.lit(f"row has more than {len(names)} fields"))
    return frame.select(*names, too_long.alias(UNREADABLE))


def _split_by_text(source: str, separator: str, names: list[str]) -> pl.LazyFrame:
    lines = pl.scan_csv(source, separator="\x1f", quote_char=None, has_header=False, schema={"line": pl.String}, **OPTIONS)
    fields = pl.col("line").str.split(separator)
    reason = pl.when(fields.list.len() != len(names)).then(pl.lit(f"row does not have {len(names)} fields"))
    picked = [fields.list.get(i, null_on_oob=True).alias(name) for i, name in enumerate(names)]
    return lines.select(*picked, reason.alias(UNREADABLE))


def _scan_decoded(
    file: str, encoding: Encoding, scan: Callable[[str], pl.LazyFrame], names: list[str], columns: Mapping[str, Kind]
) -> pl.LazyFrame:
    """Polars reads UTF-8 only: write the file as that into a temporary folder, which stays while its rows are read."""

    def batches(
        selected: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        with TemporaryDirectory(prefix="recsys-") as folder:
            copy = Path(folder) / "utf8"
            with _decoder(file, encoding) as stream, copy.open("wb") as out:
                shutil.copyfileobj(stream, out, HEAD_BYTES)
            frame = scan(str(copy))
            frame = frame.filter(predicate) if predicate is not None else frame
            frame = frame.head(n_rows) if n_rows is not None else frame
            frame = frame.select(selected) if selected else frame
            for batch in frame.collect_batches(chunk_size=batch_size, maintain_order=True):
                yield batch if selected != [] else batch.drop(batch.columns)  # no column asked for, yet the count of rows

    schema = {name: TYPES.get(columns.get(name, "text"), pl.String) for name in names} | {UNREADABLE: pl.String}
    return register_io_source(batches, schema=schema, is_pure=True)


def _decoder(file: str, encoding: Encoding) -> AbstractContextManager[Any]:
    """The file, decompressed, in UTF-8: a stream that holds little of it."""
    if is_url(file):
        raise InputError(f"{file} cannot be read with the encoding {encoding}: write it as UTF-8, or copy it to a local disk")
    stream: AbstractContextManager[Any] = pa.transcoding_input_stream(
        pa.input_stream(file, compression=COMPRESSIONS.get(Path(file).suffix.lower())), encoding, "utf8"
    )
    return stream
