"""Where raw logs lie and how their columns are called: the adapter, written in YAML, and the scan it makes."""

from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from polars.exceptions import PolarsError
from pydantic import AfterValidator, Field

from recsys.columns import ROW
from recsys.errors import InputError
from recsys.spec import Spec

TYPES = {"text": pl.String, "int": pl.Int64, "float": pl.Float64}
UNREADABLE = "_unreadable"  # why a row of a text file could not be read, null where it could


def _parses(expression: str) -> str:
    try:
        pl.sql_expr(expression)
    except (PolarsError, pl.exceptions.SQLInterfaceError) as error:
        raise ValueError(f"{expression!r} is not a Polars SQL expression: {error}") from error
    return expression


Sql = Annotated[str, AfterValidator(_parses)]  # over the source's own column names; see docs/dataset.md


class Source(Spec):
    """Files of one table. `path` is a file, a folder or a glob below the data folder; the suffix names the format."""

    path: str
    separator: str = Field(",", min_length=1, description='text files only; may be long, as in "::"')
    columns: dict[str, Literal["text", "int", "float"]] = Field(
        default_factory=dict, description="text files only: types by column, unlisted ones stay text"
    )
    header: bool = Field(True, description="text files only: without a header, `columns` names the columns in order")
    explode: str | None = Field(None, description="a column of lists that becomes one row per element")

    def files(self, folder: Path) -> list[Path]:
        """The files behind `path`, in order. Raises InputError when there are none."""
        path = folder / self.path
        found = sorted(path.rglob("*.*")) if path.is_dir() else sorted(folder.glob(self.path))
        files = [file for file in found if file.is_file() and not file.name.startswith((".", "_"))]
        if not files:
            raise InputError(f"{path} does not exist or holds no files: name the folder of the raw logs with --data")
        return files

    def scan(self, folder: Path) -> pl.LazyFrame:
        """All rows, with `ROW` as their place in the source. Raises InputError for a file that cannot be opened."""
        files = self.files(folder)
        try:
            frame = self._scan(files)
            frame.collect_schema()
        except (PolarsError, OSError) as error:
            raise InputError(f"{files[0]} cannot be read: {_first_line(error)}") from error
        if self.explode:
            require(frame, [self.explode], files[0])
            frame = frame.explode(self.explode, empty_as_null=False)
        return frame.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))

    def _scan(self, files: list[Path]) -> pl.LazyFrame:
        match files[0].suffix.lower():
            case ".parquet":
                return pl.scan_parquet(files, hive_partitioning=False)
            case ".ndjson" | ".jsonl":
                return pl.scan_ndjson(files)
            case ".csv" | ".tsv" | ".dat" | ".txt" | ".inter" | ".data":
                return self._typed(self._scan_text(files))
            case suffix:
                raise InputError(f"{files[0]} has the unknown suffix {suffix!r}: use .parquet, .csv, .tsv, .dat, .ndjson or .jsonl")

    def _scan_text(self, files: list[Path]) -> pl.LazyFrame:
        options: dict[str, Any] = {"infer_schema": False, "encoding": "utf8-lossy"}
        if len(self.separator) == 1:
            names = None if self.header else list(self.columns)
            return pl.scan_csv(files, separator=self.separator, has_header=self.header, new_columns=names, **options)
        if self.header or not self.columns:
            raise InputError(f"{files[0]}: with the separator {self.separator!r} set `header: false` and list `columns`")
        lines = pl.scan_csv(files, separator="\x1f", quote_char=None, has_header=False, new_columns=["line"], **options)
        fields = pl.col("line").str.split(self.separator)
        fits = fields.list.len() == len(self.columns)
        reason = pl.when(~fits).then(pl.lit(f"row does not have {len(self.columns)} fields"))
        picked = [fields.list.get(i, null_on_oob=True).alias(name) for i, name in enumerate(self.columns)]
        return lines.select(reason.alias(UNREADABLE), *picked)

    def _typed(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Cast text columns; a value that does not fit makes its row unreadable instead of stopping the run."""
        names = frame.collect_schema().names()
        reasons = [pl.col(UNREADABLE)] if UNREADABLE in names else []
        casts = []
        for name, kind in self.columns.items():
            if kind == "text" or name not in names:
                continue
            value = pl.col(name).str.strip_chars()
            cast = value.cast(TYPES[kind], strict=False)
            reasons.append(pl.when(cast.is_null() & value.is_not_null()).then(pl.lit(f"{name} is not a number")))
            casts.append(cast.alias(name))
        return frame.with_columns(*casts, pl.coalesce(reasons).alias(UNREADABLE) if reasons else pl.lit(None, pl.String).alias(UNREADABLE))


class Events(Source):
    """The interaction log. Every value but `path` is a column or a SQL expression over the columns of the log."""

    user: Sql
    item: Sql
    time: Sql | None = Field(None, description="left out: the order of the rows is the order of time")
    time_unit: Literal["s", "ms", "us", "iso"] = "s"
    history: Sql = Field("true", description="which rows enter the user's timeline, such as `click = 1`")
    labels: dict[str, Sql] = Field(default_factory=dict, description="task -> 0/1 or truth value; null where it does not exist")
    context: dict[str, Sql] = Field(default_factory=dict, description="feature -> category known at request time")
    propensity: Sql | None = None
    slot: Sql | None = None
    ties: Literal["file_order", "simultaneous"] = Field(
        "file_order", description="simultaneous: a user's events of one time do not see each other"
    )

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
    """User or item attributes, one row per id. A feature is a category, or a list of categories."""

    id: Sql
    features: dict[str, Sql] = Field(default_factory=dict)
    title: Sql | None = Field(None, description="items only: text shown to people")

    @property
    def expressions(self) -> dict[str, str]:
        title = {"title": self.title} if self.title is not None else {}
        return {"id": self.id, **title, **{f"features.{name}": text for name, text in self.features.items()}}


def require(frame: pl.LazyFrame, columns: list[str], file: Path) -> None:
    """Raise InputError when a column is missing, naming the file, the column and what is there."""
    present = frame.collect_schema().names()
    for column in columns:
        if column not in present:
            shown = ", ".join(name for name in present if name not in (ROW, UNREADABLE))
            raise InputError(f"{file} has no column {column!r}: map one of [{shown}] in the `data` section of the config")


def check_expressions(frame: pl.LazyFrame, expressions: dict[str, str], file: Path) -> None:
    """Raise InputError when an expression names a missing column or does not fit the types."""
    for field, text in expressions.items():
        expression = pl.sql_expr(text)
        require(frame, expression.meta.root_names(), file)
        try:
            frame.select(expression.alias("value")).collect_schema()
        except PolarsError as error:
            raise InputError(f"{file}: {field} = {text!r} does not fit the data: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
