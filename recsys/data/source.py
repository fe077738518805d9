"""Where raw logs lie and how their columns are called: the adapter, written in YAML, and the pieces it reads."""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
from pydantic import AfterValidator, Field, model_validator

from recsys.columns import CREATED_MS, EVENT_TIME_MS
from recsys.data import delta
from recsys.data.alike import require_alike
from recsys.data.check import first_line
from recsys.data.labels import LabelSpec, value_columns
from recsys.data.listing import list_files
from recsys.data.location import Arrives, check_path, format_of, has_wildcard, is_url, natural, suffix_of, unit_of
from recsys.data.piece import Layout, Piece
from recsys.data.rules import Conflicts
from recsys.data.sql import Name, Sql
from recsys.data.text import PLACE
from recsys.duration import Duration, milliseconds
from recsys.errors import InputError

TimeUnit = Literal["s", "ms", "us", "ns", "iso", "date", "order", "auto"]


class Source(Layout):
    """Files of one table. `path` is a file, a folder, a glob or a Delta table below the data folder, or a URL of such."""

    path: Annotated[str, AfterValidator(check_path)]

    @property
    @abstractmethod
    def expressions(self) -> dict[str, str]:
        """Field of the config -> SQL expression."""

    @property
    @abstractmethod
    def ids(self) -> dict[str, str]:
        """What the quarantine calls an id -> SQL expression."""

    @property
    @abstractmethod
    def arrival(self) -> Arrives:
        """In which units the pieces arrived."""

    @property
    def read_columns(self) -> list[str]:
        """The source's columns that the expressions read."""
        return sorted({name for text in self.expressions.values() for name in pl.sql_expr(text).meta.root_names()})

    def pieces(self, folder: Path) -> list[Piece]:
        """What `path` leads to: units in their natural order, then names. Raises InputError where columns differ."""
        return require_alike(self.list_pieces(folder))

    def list_pieces(self, folder: Path) -> list[Piece]:
        """The same without a look into the files."""
        if is_url(self.path):
            suffix = suffix_of(self.path)
            pieces = [self._piece(self.path, self.path, suffix) if suffix else self._delta_piece(self.path)]
        elif delta.is_table(folder / self.path):
            pieces = [self._delta_piece(str((folder / self.path).absolute()))]
        else:
            pieces = [
                self._piece(
                    file.relative_to(folder).as_posix(), str(file.absolute()), suffix_of(file.name), file.stat().st_size
                )
                for file in self.files(folder)
            ]
        return sorted(pieces, key=lambda piece: (natural(piece.unit), natural(piece.name)))

    def files(self, folder: Path) -> list[Path]:
        """The local files behind `path`, numbers in their names in order of size. Raises InputError when there are none."""
        return [] if is_url(self.path) else list_files(folder, self.path)

    def scan(self, folder: Path) -> pl.LazyFrame:
        """All rows of all pieces, with `PLACE` counted over all, and null for NaN. Raises InputError."""
        frames = [piece.scan().drop(PLACE) for piece in self.pieces(folder)]
        schemas = [frame.collect_schema() for frame in frames]
        shared = [
            name for name, dtype in schemas[0].items()
            if name in self.read_columns or all(schema.get(name) == dtype for schema in schemas)
        ]  # fmt: skip
        frame = pl.concat([frame.select(shared) for frame in frames], how="vertical_relaxed")
        return frame.with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.Int64))

    def unreadable(self, files: list[Path], error: Exception) -> InputError:
        """The sentence about files that Polars fails to read."""
        where = files[0] if len(files) == 1 else files[0].parent if files else self.path
        return InputError(f"{where} cannot be read: {first_line(error)}")

    def _piece(self, name: str, location: str, suffix: str, size: int = 0) -> Piece:
        reads = frozenset([*self.read_columns, *([self.explode] if self.explode else [])])
        return Piece(
            name=name, unit=unit_of(name, self.arrival), bytes=size, location=location, format=format_of(suffix),
            layout=self, reads=reads, ids=self.ids,
        )  # fmt: skip

    def _delta_piece(self, location: str) -> Piece:
        if self.arrival != "together":
            raise InputError(f"{location} is a Delta table, which arrives whole: leave `arrives` at together")
        table, size = delta.latest(location)
        return replace(self._piece(self.path, location, "", size), table=table)


class Events(Source):
    """The interaction log. Every value but `path` is a column or a SQL expression over the columns of the log."""

    user: Sql
    item: Sql
    time: Sql | None = Field(None, description="left out: the order of the rows is the order of time")
    time_unit: TimeUnit = Field(
        "s", description="iso: text such as 2024-05-01T12:00:00Z; date: a day, as 2024-05-01 or 20240501; order: a number that "
        "sorts a user's events and is no moment; auto: found from the first rows and reported",
    )  # fmt: skip
    arrives: Arrives = Field("together", description="by_file, by_folder: later names arrived later, as daily partitions do")
    max_lateness: Duration = Field(milliseconds("1d"), gt=0, description="rows that arrive later than that go to quarantine")
    history: Sql = Field("true", description="which rows enter the user's timeline, such as `click = 1`")
    labels: dict[Name, Sql | LabelSpec] = Field(
        default_factory=dict, description="task -> 0/1 or truth value, null where it does not exist; or a kind of label"
    )
    context: dict[Name, Sql] = Field(default_factory=dict, description="feature -> category known at request time")
    weight: Sql | None = Field(None, description="how much an event counts, such as a number by its type; left out: 1")
    propensity: Sql | None = None
    slot: Sql | None = None
    conflicts: Conflicts = Field(
        "keep", description="rows of the same user, item and time that differ otherwise: keep all, the first, the last or none"
    )
    ties: Literal["file_order", "simultaneous"] = Field(
        "file_order", description="simultaneous: a user's events of one time do not see each other"
    )

    @model_validator(mode="after")
    def _values_have_columns_of_their_own(self) -> "Events":
        value_columns(self.labels)
        return self

    @model_validator(mode="after")
    def _units_can_be_told_apart(self) -> "Events":
        if self.arrives != "together" and is_url(self.path) and has_wildcard(self.path):
            raise ValueError(
                f"arrives {self.arrives!r} needs the names of the files, which a URL with a wildcard does not give"
            )
        return self

    @property
    def plain_labels(self) -> dict[str, str]:
        """Labels that are a column or an expression of the row."""
        return {task: text for task, text in self.labels.items() if isinstance(text, str)}

    @property
    def made_labels(self) -> dict[str, LabelSpec]:
        """Labels that are worked out from more than the row."""
        return {task: spec for task, spec in self.labels.items() if not isinstance(spec, str)}

    @property
    def tasks(self) -> list[str]:
        """Labels that are 0 or 1, which a ranker can learn; the others are targets only."""
        return [task for task, spec in self.labels.items() if isinstance(spec, str) or spec.is_binary]

    @property
    def has_time(self) -> bool:
        """Whether times are moments of the calendar."""
        return self.time is not None and self.time_unit != "order"

    @property
    def ids(self) -> dict[str, str]:
        return {"user id": self.user, "item id": self.item}

    @property
    def arrival(self) -> Arrives:
        return self.arrives

    @property
    def expressions(self) -> dict[str, str]:
        optional = {"time": self.time, "weight": self.weight, "propensity": self.propensity, "slot": self.slot}
        return {
            "user": self.user, "item": self.item, "history": self.history,
            **{name: text for name, text in optional.items() if text is not None},
            **{f"labels.{task}": text for task, text in self.plain_labels.items()},
            **{
                f"labels.{task}.{suffix or 'value'}": text
                for task, spec in self.made_labels.items()
                for suffix, text in spec.values.items()
            },
            **{f"context.{name}": text for name, text in self.context.items()},
        }  # fmt: skip


class Table(Source):
    """User or item attributes: a category or a list of categories each. Of an id's rows the first value not null counts."""

    id: Sql
    features: dict[Name, Sql] = Field(default_factory=dict)
    title: Sql | None = Field(None, description="items only: text shown to people")
    event_time: Sql | None = Field(None, description="slowly changing tables: from when on the row's values hold")
    created: Sql | None = Field(None, description="slowly changing tables: when the row became known; default: event_time")
    time_unit: Literal["s", "ms", "us", "ns", "iso", "date"] = Field("s", description="of event_time and created")

    @model_validator(mode="after")
    def _versions_have_names_of_their_own(self) -> "Table":
        for name in ("id", EVENT_TIME_MS, CREATED_MS):
            if self.changes and name in self.features:
                raise ValueError(f"features names {name!r}, which a slowly changing table has already: give it another name")
        if self.created is not None and not self.changes:
            raise ValueError("created has no use without event_time: add event_time, from when on a row's values hold")
        return self

    @property
    def changes(self) -> bool:
        """Whether an id has a row for every time its values changed."""
        return self.event_time is not None

    @property
    def ids(self) -> dict[str, str]:
        return {"id": self.id}

    @property
    def arrival(self) -> Arrives:
        return "together"

    @property
    def expressions(self) -> dict[str, str]:
        title = {"title": self.title} if self.title is not None else {}
        times = {"event_time": self.event_time, "created": self.created}
        known = {name: text for name, text in times.items() if text is not None}
        return {"id": self.id, **title, **known, **{f"features.{name}": text for name, text in self.features.items()}}
