"""Do the pieces of a source have the same columns? The first that does not is named, with the mend."""

from dataclasses import replace

import polars as pl

from recsys.data.piece import Piece
from recsys.data.text import UNREADABLE
from recsys.errors import InputError

Schema = dict[str, pl.DataType]


def require_alike(pieces: list[Piece]) -> list[Piece]:
    """The pieces, if what is read of them agrees with the first; NDJSON ones know the columns of all."""
    schemas = [piece.schema() for piece in pieces]
    first, expected = pieces[0], schemas[0]
    if first.format == "ndjson":
        known = _merge(pieces, schemas)
        return [replace(piece, known=known) for piece in pieces]
    for piece, schema in zip(pieces, schemas, strict=True):
        if first.format == "text" and list(schema) != list(expected):
            raise InputError(
                f"{piece.location} has the columns [{_names(schema)}] where {first.location} has [{_names(expected)}]: "
                "make them the same"
            )
        for name in sorted(first.reads):
            if schema.get(name) != expected.get(name):
                raise _differs(piece, schema.get(name), first, expected.get(name), name)
    return pieces


def _merge(pieces: list[Piece], schemas: list[Schema]) -> Schema:
    """Column -> type over all files. A whole number in one may be a fraction in another; other types must agree."""
    merged: Schema = {}
    owner: dict[str, Piece] = {}
    for piece, schema in zip(pieces, schemas, strict=True):
        for name, dtype in schema.items():
            before = merged.get(name, dtype)
            if dtype == pl.Null or name == UNREADABLE:
                continue
            if before != dtype and not (before.is_numeric() and dtype.is_numeric()) and name in piece.reads:
                raise _differs(piece, dtype, owner[name], before, name)
            merged[name] = pl.Float64() if before != dtype and dtype.is_numeric() else before
            owner.setdefault(name, piece)
    return merged


def _differs(piece: Piece, has: pl.DataType | None, first: Piece, expected: pl.DataType | None, name: str) -> InputError:
    found = f"no {name!r}" if has is None else f"{name!r} as {has}"
    return InputError(
        f"{piece.location} has {found} where {first.location} has {'none' if expected is None else expected}: "
        "make the files alike"
    )


def _names(schema: Schema) -> str:
    return ", ".join(name for name in schema if name != UNREADABLE)
