"""What is known of a day's raw partition once it was read: counts, histograms, fingerprints. It is kept as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.location import is_url
from recsys.data.piece import Piece

FORMAT_VERSION = 1
LOOK_BACK = 7  # days that a day is held against: each weekday once

Bins = dict[str, int]  # name of a bin -> rows


@dataclass(frozen=True)
class Arrived:
    """A day's rows. `rows` counts all of them, the bad ones included; everything below it looks at the good ones."""

    day: str
    units: dict[str, str]  # arrival unit -> fingerprint of its files
    stats: dict[str, list[int]]  # local file -> size and time of change, by which a change is noticed
    schema: dict[str, str]  # column -> type
    content: str  # a hash over all rows that does not hang on their order, their files or the date
    rows: int
    bad: dict[str, int]  # reason -> rows
    users: int
    items: int
    outside: int  # rows outside of the day
    first_ms: int | None
    last_ms: int | None
    bots: dict[str, int]  # rule -> users that no person can be
    bot_rows: int
    columns: dict[str, Bins]
    before: dict[str, dict[str, Any]] = field(default_factory=dict)  # days that had to be read beside this one, as JSON

    @property
    def good(self) -> int:
        return self.rows - sum(self.bad.values())

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Arrived | None":
        """From JSON; None where another version of this code wrote it, so that the day is read again."""
        names = {each.name for each in fields(cls)}
        if found.get("format_version") != FORMAT_VERSION or not names <= set(found):
            return None
        return cls(**{name: found[name] for name in names})

    def is_of(self, pieces: Sequence[Piece]) -> bool:
        """Whether these are the files that were read, unchanged, as far as sizes and times of change tell."""
        return self.stats == file_stats(pieces)


def file_stats(pieces: Sequence[Piece]) -> dict[str, list[int]]:
    """By file its size and time of change in ns; of a URL nothing is known."""
    found = {piece.name: Path(piece.location).stat() for piece in pieces if not is_url(piece.location)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def flattened(known: Mapping[str, Mapping[str, Any]]) -> dict[str, Arrived]:
    """Day -> what is known of it, the days that were read beside another included, which their own results go before."""
    own = {day: Arrived.of(found) for day, found in known.items()}
    beside = {
        day: Arrived.of(found) for each in known.values() for day, found in each.get("before", {}).items() if day not in own
    }
    return {day: found for day, found in sorted((beside | own).items()) if found is not None}


def days_before(day: str, past: Mapping[str, Arrived]) -> list[Arrived]:
    """Of the newest `LOOK_BACK` days before this one that have rows."""
    return [past[each] for each in sorted(past) if each < day and past[each].good][-LOOK_BACK:]


def median(counts: Iterable[float]) -> float | None:
    values = list(counts)
    return float(np.median(values)) if values else None
