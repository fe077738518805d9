"""Raw files without the rows of some users. Every file is written aside and renamed, so that a reader finds the old or the new.

Text and NDJSON, compressed or not, keep every other line byte for byte; Parquet is written anew with the same schema.
Shapes: R = rows of a file.
"""

import gzip
import io
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from recsys.data import Data
from recsys.data.canonical import clean_text
from recsys.data.piece import Piece
from recsys.data.source import Source
from recsys.data.text import PLACE
from recsys.errors import InputError


def erase(data: Data, raw: Path, users: Iterable[str]) -> dict[str, int]:
    """Rewrite the log and the table of users without these users; file -> how many rows left it.

    Done again it changes nothing. Raises InputError for what cannot be rewritten: URLs, Delta tables, text whose rows are not
    lines; and then no file has changed.
    """
    chosen = sorted(set(users))
    sources: list[tuple[Source, str]] = [
        (data.events, data.events.user),
        *([(data.users, data.users.id)] if data.users else []),
    ]
    found = [(piece, *_rows_of(piece, id_, chosen)) for source, id_ in sources for piece in source.list_pieces(raw)]
    for piece, rows, gone in found:
        if len(gone) and piece.format == "text" and _lines(piece) != rows + piece.layout.header:
            raise InputError(
                f"{piece.location} has rows that are not one line each, so that rows cannot be taken out of it: write it anew "
                f"without the {len(gone)} rows of the users to forget, then run this again"
            )
    for piece, _, gone in found:
        if len(gone):
            _rewrite(piece, gone)
    return {piece.name: len(gone) for piece, _, gone in found if len(gone)}


def _rows_of(piece: Piece, id_: str, users: list[str]) -> tuple[int, np.ndarray]:
    """How many rows the file has, and which are the users', by the rule that makes ids of them. Raises InputError."""
    piece = replace(piece, layout=piece.layout.model_copy(update={"explode": None}))  # a row of the file, not of its lists
    with piece.reading():
        frame = piece.scan()
        mine = frame.select(PLACE, mine=clean_text(id_, frame).is_in(users)).collect()
    gone = mine.filter("mine")[PLACE].to_numpy()
    if len(gone) and (piece.format == "delta" or "://" in piece.location):
        raise InputError(
            f"{piece.location} has {len(gone)} rows of the users to forget and is no local file that can be rewritten: delete "
            "them there (of a Delta table also its old versions, with vacuum), then run this again"
        )
    return len(mine), gone


def _rewrite(piece: Piece, gone: np.ndarray) -> None:
    path = Path(piece.location)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.forget")
    try:
        if piece.format == "parquet":
            _rewrite_parquet(path, scratch, gone)
        else:
            _rewrite_lines(path, scratch, {int(row) + (piece.format == "text" and piece.layout.header) for row in gone})
        scratch.chmod(path.stat().st_mode & 0o777)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)


def _rewrite_parquet(path: Path, scratch: Path, gone: np.ndarray) -> None:
    """Row group by row group, each with the compression of its first column."""
    with parquet.ParquetFile(path) as old:
        codec = old.metadata.row_group(0).column(0).compression if old.num_row_groups else "SNAPPY"
        first = 0
        with parquet.ParquetWriter(scratch, old.schema_arrow, compression="NONE" if codec == "UNCOMPRESSED" else codec) as new:
            for group in range(old.num_row_groups):
                table = old.read_row_group(group)
                kept_R = np.ones(len(table), bool)
                kept_R[gone[(gone >= first) & (gone < first + len(table))] - first] = False
                new.write_table(table.filter(pa.array(kept_R)))
                first += len(table)


def _rewrite_lines(path: Path, scratch: Path, gone: set[int]) -> None:
    """Lines are counted as Polars counts rows: those of white space alone are none."""
    number = 0
    with _open(path, "rb") as old, _open(scratch, "wb", like=path) as new:
        for line in old:
            is_row = bool(line.strip())
            if not is_row or number not in gone:
                new.write(line)
            number += is_row


def _lines(piece: Piece) -> int:
    with _open(Path(piece.location), "rb") as file:
        return sum(bool(line.strip()) for line in file)


def _open(path: Path, mode: str, *, like: Path | None = None) -> IO[Any]:
    match (like or path).suffix.lower():
        case ".gz":
            return gzip.open(path, mode)  # type: ignore[return-value]
        case ".zst":
            stream = pa.CompressedInputStream if "r" in mode else pa.CompressedOutputStream
            native = stream(pa.OSFile(str(path), mode), "zstd")
            return cast(IO[Any], io.BufferedReader(native) if "r" in mode else io.BufferedWriter(native))
        case _:
            return path.open(mode)


def has_rows(data: Data, raw: Path, users: Iterable[str]) -> int:
    """How many rows of the log and the table of users are still these users'."""
    chosen = sorted(set(users))
    sources: list[tuple[Source, str]] = [
        (data.events, data.events.user),
        *([(data.users, data.users.id)] if data.users else []),
    ]
    return sum(len(_rows_of(piece, id_, chosen)[1]) for source, id_ in sources for piece in source.list_pieces(raw))
