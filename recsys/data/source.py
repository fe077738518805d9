"""Where raw logs lie and how their columns are called: the adapter, written in YAML, and the scan it makes."""

import re
from abc import abstractmethod
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import polars as pl
import polars.selectors as cs
from polars.exceptions import PolarsError
from pydantic import AfterValidator, Field

from recsys.data.check import first_line, require
from recsys.data.text import PLACE, TEXT_SUFFIXES, Encoding, Kind, scan_text
from recsys.errors import InputError
from recsys.spec import Spec

JSON_SUFFIXES = (".ndjson", ".jsonl")
SUFFIXES = (".parquet", *TEXT_SUFFIXES, *JSON_SUFFIXES)


def _parses(expression: str) -> str:
    try:
        pl.sql_expr(expression)
    except (PolarsError, pl.exceptions.SQLInterfaceError) as error:
        raise ValueError(
            f"{expression!r} is not a column or a Polars SQL expression ({first_line(error)}); a column whose name is a word "
            "of SQL or holds spaces goes in double quotes, as in '\"user\"'"
        ) from error
    return expression


def _inside(path: str) -> str:
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"path {path!r} must be relative to the folder of the raw logs and stay in it")
    return path


Sql = Annotated[str, AfterValidator(_parses)]  # over the source's own column names; see docs/own-data.md
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Source(Spec):
    """Files of one table. `path` is a file, a folder or a glob below the data folder; the suffix names the format."""

    path: Annotated[str, AfterValidator(_inside)]
    separator: str = Field(",", min_length=1, description='text files only; may be long, as in "::"')
    columns: dict[str, Kind] = Field(
        default_factory=dict, description="text files only: types by column, unlisted ones stay text"
    )
    header: bool = Field(True, description="text files only: without a header, `columns` names the columns in order")
    encoding: Encoding = Field("utf8", description="text files only")
    explode: str | None = Field(None, description="a column of lists that becomes one row per element")

    @property
    @abstractmethod
    def expressions(self) -> dict[str, str]:
        """Field of the config -> SQL expression."""

    @property
    def read_columns(self) -> list[str]:
        """The source's columns that the expressions read."""
        return sorted({name for text in self.expressions.values() for name in pl.sql_expr(text).meta.root_names()})

    def files(self, folder: Path) -> list[Path]:
        """The files behind `path`, numbers in their names in order of size. Raises InputError when there are none."""
        path = folder / self.path
        if path.is_file():
            files = [path]
        else:
            found = [path] if path.is_dir() else list(folder.glob(self.path))
            files = [file for each in found for file in (each.rglob("*") if each.is_dir() else [each]) if file.is_file()]
            files = sorted((file for file in set(files) if not _is_hidden(file.relative_to(folder))), key=_natural)
        if not files:
            raise InputError(f"{path} does not exist or holds no files: name the folder of the raw logs with --data")
        for file in files:
            if file.suffix.lower() not in SUFFIXES:
                raise InputError(
                    f"{file} has the unknown suffix {file.suffix!r}: `path` must lead to {', '.join(SUFFIXES)} files only"
                )
            if file.suffix.lower() != files[0].suffix.lower():
                raise InputError(
                    f"{file} has another format than {files[0]}: narrow `path` to one, as in {self.path}/*{file.suffix}"
                )
        return files

    def scan(self, folder: Path) -> pl.LazyFrame:
        """All rows, with `PLACE`, and null for NaN. Raises InputError for a file that cannot be opened."""
        files = self.files(folder)
        try:
            frame = self._scan(files)
            schema = frame.collect_schema()
        except (PolarsError, OSError) as error:
            raise self.unreadable(files, error) from error
        if self.explode:
            require(frame, [self.explode], files[0])
            if not isinstance(schema[self.explode], pl.List | pl.Array):
                raise InputError(
                    f"{files[0]}: explode = {self.explode!r} is not a column of lists but {schema[self.explode]}: leave it out"
                )
            frame = frame.explode(self.explode, empty_as_null=False)
        return frame.with_columns(cs.float().fill_nan(None)).with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.Int64))

    def _scan(self, files: list[Path]) -> pl.LazyFrame:
        suffix = files[0].suffix.lower()
        if suffix == ".parquet":
            return pl.scan_parquet(files, hive_partitioning=False, extra_columns="ignore")
        if suffix in JSON_SUFFIXES:
            return pl.scan_ndjson(files, infer_schema_length=None)
        return scan_text(files, separator=self.separator, header=self.header, columns=self.columns, encoding=self.encoding)

    def unreadable(self, files: list[Path], error: Exception) -> InputError:
        """The sentence about files that Polars fails to read, naming the one that is to blame."""
        expected: dict[str, Any] = {}
        for file in files:
            try:
                schema = dict(self._scan([file]).collect_schema())
            except (PolarsError, OSError) as own:
                return InputError(f"{file} cannot be read ({first_line(own)}): write it again, or take it out of the folder")
            for name in self.read_columns:
                if expected and schema.get(name) != expected.get(name):
                    has = f"{name!r} as {schema[name]}" if name in schema else f"no {name!r}"
                    return InputError(
                        f"{file} has {has} where {files[0]} has {expected.get(name, 'none')}: make the files alike"
                    )
            expected = expected or schema
        return InputError(f"{files[0] if len(files) == 1 else files[0].parent} cannot be read: {first_line(error)}")


class Events(Source):
    """The interaction log. Every value but `path` is a column or a SQL expression over the columns of the log."""

    user: Sql
    item: Sql
    time: Sql | None = Field(None, description="left out: the order of the rows is the order of time")
    time_unit: Literal["s", "ms", "us", "iso", "order"] = Field(
        "s", description="iso: text such as 2024-05-01T12:00:00Z; order: a number that sorts a user's events and is no moment"
    )
    history: Sql = Field("true", description="which rows enter the user's timeline, such as `click = 1`")
    labels: dict[Name, Sql] = Field(
        default_factory=dict, description="task -> 0/1 or truth value; null where it does not exist"
    )
    context: dict[Name, Sql] = Field(default_factory=dict, description="feature -> category known at request time")
    propensity: Sql | None = None
    slot: Sql | None = None
    ties: Literal["file_order", "simultaneous"] = Field(
        "file_order", description="simultaneous: a user's events of one time do not see each other"
    )

    @property
    def has_time(self) -> bool:
        """Whether times are moments of the calendar."""
        return self.time is not None and self.time_unit != "order"

    @property
    def expressions(self) -> dict[str, str]:
        optional = {"time": self.time, "propensity": self.propensity, "slot": self.slot}
        return {
            "user": self.user, "item": self.item, "history": self.history,
            **{name: text for name, text in optional.items() if text is not None},
            **{f"labels.{task}": text for task, text in self.labels.items()},
            **{f"context.{name}": text for name, text in self.context.items()},
        }  # fmt: skip


class Table(Source):
    """User or item attributes: a category or a list of categories each. Of an id's rows the first value not null counts."""

    id: Sql
    features: dict[Name, Sql] = Field(default_factory=dict)
    title: Sql | None = Field(None, description="items only: text shown to people")

    @property
    def expressions(self) -> dict[str, str]:
        title = {"title": self.title} if self.title is not None else {}
        return {"id": self.id, **title, **{f"features.{name}": text for name, text in self.features.items()}}


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _natural(file: Path) -> list[list[str | int]]:
    """Sorts part-2 before part-10."""
    return [[int(piece) if piece.isdecimal() else piece for piece in re.split(r"([0-9]+)", part)] for part in file.parts]
