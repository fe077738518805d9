"""Raw files without the rows of some users. Every file is written aside and renamed, so that a reader finds the old or the new.

Text and NDJSON, compressed or not, keep every other line byte for byte; Parquet is written anew with the same schema. Files of
a server's journal keep their place and length: lines become blanks, and those that say whom to forget stay.
Shapes: R = rows of a file.
"""

import gzip
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from pipelines.forget.live import blank_lines
from recsys.data import Data
from recsys.data.canonical import clean_text
from recsys.data.piece import Piece
from recsys.data.source import Source
from recsys.data.text import PLACE
from recsys.errors import InputError
from serving.journal.journal import FORGOTTEN, POSTED, SHOWN


def erase(data: Data, raw: Path, users: Iterable[str]) -> dict[str, int]:
    """Rewrite the log and the table of users without these users; file -> how many rows left it.

    Done again it changes nothing. Raises InputError for what cannot be rewritten: URLs, Delta tables, text whose rows are not
    lines; and then no file has changed.
    """
    found = list(_found(data, raw, users))
    for piece, rows, gone in found:
        if len(gone) and piece.format == "text" and _lines(Path(piece.location)) != rows + piece.layout.header:
            raise InputError(
                f"{piece.location} has rows that are not one line each, so that rows cannot be taken out of it: write it anew "
                f"without the {len(gone)} rows of the users to forget, then run this again"
            )
    for piece, _, gone in found:
        if len(gone):
            _rewrite(piece, gone)
    return {piece.name: len(gone) for piece, _, gone in found if len(gone)}


def _found(data: Data, raw: Path, users: Iterable[str]) -> Iterator[tuple[Piece, int, np.ndarray]]:
    """Every file of the log and of the table of users, how many rows it has, and which are the users'."""
    sources: list[tuple[Source, str]] = [
        (data.events, data.events.user),
        *([(data.users, data.users.id)] if data.users else []),
    ]
    chosen = sorted(set(users))
    return (
        (piece, *_rows_of(piece, id_, chosen))
        for source, id_ in sources
        for piece in source.list_pieces(raw)
        if not piece.location.endswith(FORGOTTEN)
    )


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
    path = Path(piece.location).resolve()  # a link stays one
    if piece.location.endswith((SHOWN, POSTED)):
        rows = set(gone.tolist())
        blank_lines(path, lambda number, _: number in rows)
        return
    scratch = path.with_name(f".{path.name}.forget")  # the same name again after a kill, so that none is left behind
    try:
        if piece.format == "parquet":
            _rewrite_parquet(path, scratch, gone)
        else:
            _rewrite_lines(piece, path, scratch, gone)
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


def _rewrite_lines(piece: Piece, path: Path, scratch: Path, gone: np.ndarray) -> None:
    """Lines are counted as Polars counts rows: those of white space alone are rows of text, and none of NDJSON."""
    is_text, like, number = piece.format == "text", Path(piece.location), 0
    lines = set((gone + (is_text and piece.layout.header)).tolist())
    with _open(path, "rb", like=like) as old, _open(scratch, "wb", like=like) as new:
        for line in old:
            is_row = is_text or bool(line.strip())
            if not is_row or number not in lines:
                new.write(line)
            number += is_row


def _lines(path: Path) -> int:
    with _open(path, "rb", like=path) as file:
        return sum(1 for _ in file)


def _open(path: Path, mode: str, *, like: Path) -> IO[Any]:
    """As the suffix of `like` says."""
    match like.suffix.lower():
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
    return sum(len(gone) for *_, gone in _found(data, raw, users))
