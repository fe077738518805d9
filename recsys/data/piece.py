"""One file, table or URL of a source: its rows, its place in the order of arrival, and what it is recognised by."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import assert_never

import polars as pl
import polars.selectors as cs
from polars.exceptions import PolarsError
from pydantic import Field

from recsys.artefact import file_hash
from recsys.data import delta
from recsys.data.check import first_line, require
from recsys.data.location import NO_VALUE, Format, has_wildcard, is_url, partition_keys
from recsys.data.text import PLACE, UNREADABLE, Encoding, Kind, cast_declared, scan_text
from recsys.errors import InputError
from recsys.spec import Spec

HEAD_ROWS = 100  # of NDJSON, by which files are compared
ADDRESS = "_address"  # of the file a row comes from
EXACT: dict[type[pl.DataType], int] = {pl.Float32: 2**24, pl.Float64: 2**53}  # from here on not every whole number is a float


class Layout(Spec):
    """How the files of a table are written."""

    separator: str = Field(",", min_length=1, description='text files only; may be long, as in "::"')
    columns: dict[str, Kind] = Field(
        default_factory=dict, description="types by column of text, NDJSON and partition keys; unlisted text and keys stay text"
    )
    header: bool = Field(True, description="text files only: without a header, `columns` names the columns in order")
    encoding: Encoding = Field("utf8", description="text files only")
    quotes: bool = Field(True, description="text files only: with `false`, quotation marks are characters like any other")
    explode: str | None = Field(None, description="a column of lists that becomes one row per element")


@dataclass(frozen=True)
class Piece:
    """A unit of reading, which can be sent to another process that sees the same files."""

    name: str  # path below the data folder, or the URL
    unit: str  # of arrival: units arrived in their natural order
    bytes: int  # 0 where unknown
    location: str  # absolute path or URL
    format: Format
    layout: Layout
    reads: frozenset[str] = frozenset()  # columns that the config reads
    ids: Mapping[str, str] = field(default_factory=dict)  # what the quarantine calls an id -> its expression
    known: Mapping[str, pl.DataType] = field(default_factory=dict)  # NDJSON: columns of the table, null where a file has none
    table: delta.Version | None = None  # of a Delta table, when it was listed

    def fingerprint(self) -> str:
        """What changes when the content does; of a URL only its text is known."""
        if self.table is not None:
            return f"delta:{self.table.id}@{self.table.number}"
        return f"url:{self.location}" if is_url(self.location) else file_hash(Path(self.location))

    def scan(self) -> pl.LazyFrame:
        """All rows in their order, with `PLACE`, partition keys and null for NaN; `UNREADABLE` where rows may be bad.

        What goes wrong later, while the rows are read, gets its sentence inside `reading`.
        """
        with self.reading():
            frame = self._explode(self._open(head_only=False)).with_columns(cs.float().fill_nan(None))
            return self._mark_inexact_ids(frame).with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.Int64))

    def schema(self) -> dict[str, pl.DataType]:
        """Columns and types; of NDJSON, those of the first rows."""
        with self.reading():
            return dict(self._open(head_only=True).collect_schema())

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what Polars says about the file into an InputError that names it."""
        try:
            yield
        except (PolarsError, OSError) as error:
            mend = "write it again, or take it out of the folder"
            if is_url(self.location):
                mend = "check the URL, the network and the credentials in the environment"
            raise InputError(f"{self.location} cannot be read ({first_line(error)}): {mend}") from error

    def _open(self, *, head_only: bool) -> pl.LazyFrame:
        keys, layout = partition_keys(self.name), self.layout
        columns = {name: kind for name, kind in layout.columns.items() if name not in keys}
        address = ADDRESS if any(value and has_wildcard(value) for value in keys.values()) else None
        match self.format:
            case "parquet":
                frame = pl.scan_parquet(
                    self.location, hive_partitioning=False, glob=is_url(self.location), extra_columns="ignore",
                    include_file_paths=address,
                )  # fmt: skip
            case "ndjson":
                frame = self._open_ndjson(columns, keys, address, head_only)
            case "text":
                frame = scan_text(
                    self.location, separator=layout.separator, header=layout.header, columns=columns,
                    encoding=layout.encoding, quotes=layout.quotes,
                )  # fmt: skip
            case "delta":
                assert self.table is not None
                return delta.scan(self.location, self.table)
            case _:
                assert_never(self.format)
        return self._with_keys(frame, keys, address)

    def _open_ndjson(
        self, columns: Mapping[str, Kind], keys: Mapping[str, str | None], address: str | None, head_only: bool
    ) -> pl.LazyFrame:
        """Types come from all rows, unless those of all columns that are read are declared."""
        place = self.location if is_url(self.location) else escape(self.location)
        schema: dict[str, pl.DataType] = {name: pl.String() for name in columns}
        if not self.reads or not self.reads <= {*columns, *keys}:
            found = pl.scan_ndjson(place, infer_schema_length=HEAD_ROWS if head_only else None).collect_schema()
            typed = {name: dtype for name, dtype in found.items() if dtype != pl.Null}
            known = {name: dtype for name, dtype in self.known.items() if name not in keys}
            schema = {**found, **known, **typed, **schema}
        frame = pl.scan_ndjson(place, schema=schema, include_file_paths=address)
        return frame.with_columns(pl.lit(None, pl.String).alias(UNREADABLE)).pipe(cast_declared, columns, list(columns))

    def _with_keys(self, frame: pl.LazyFrame, keys: Mapping[str, str | None], address: str | None) -> pl.LazyFrame:
        """Add partition keys as columns, save those that the file has itself."""
        schema = frame.collect_schema()
        absent = {key: value for key, value in keys.items() if key not in schema}
        values = {
            key: pl.col(ADDRESS).str.extract(f"/{key}=([^/]*)/").replace(NO_VALUE, None)
            if value and has_wildcard(value) else pl.lit(value, pl.String)
            for key, value in absent.items()
        }  # fmt: skip
        frame = frame.with_columns(**values)
        declared = {key: kind for key, kind in self.layout.columns.items() if key in absent}
        if declared:
            reason = pl.col(UNREADABLE) if UNREADABLE in schema else pl.lit(None, pl.String)
            frame = frame.with_columns(reason.alias(UNREADABLE)).pipe(cast_declared, declared, list(declared))
        return frame.drop(address) if address else frame

    def _explode(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        column = self.layout.explode
        if column is None:
            return frame
        require(frame, [column], self.location)
        dtype = frame.collect_schema()[column]
        if not isinstance(dtype, pl.List | pl.Array):
            raise InputError(f"{self.location}: explode = {column!r} is not a column of lists but {dtype}: leave it out")
        return frame.explode(column, empty_as_null=False)

    def _mark_inexact_ids(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Set rows aside whose id is a float so large that two ids may have become one."""
        schema = frame.collect_schema()
        reasons = [pl.col(UNREADABLE)] if UNREADABLE in schema else []
        for name, text in self.ids.items():
            expression = pl.sql_expr(text)
            try:
                limit = EXACT.get(type(frame.select(value=expression).collect_schema()["value"]))
            except PolarsError:  # `check_expressions` says what is wrong with it
                continue
            if limit:
                reason = f"{name} is a float of 2^{limit.bit_length() - 1} or more: ids of that size must be stored whole"
                reasons.append(pl.when(expression.abs() >= limit).then(pl.lit(reason)))
        return frame.with_columns(pl.coalesce(reasons).alias(UNREADABLE)) if reasons else frame
