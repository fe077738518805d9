"""Is a day's partition still being written? What its names, its marker and its clock say, before a row is read."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path, PurePosixPath

from recsys.data.days import day_of
from recsys.data.location import JSON_SUFFIXES, TEXT_SUFFIXES, Arrives, is_url, suffix_of
from recsys.data.piece import Piece
from recsys.errors import InputError

# Names under which browsers, rsync, Hadoop, Spark and Flink write what they later rename.
UNFINISHED = re.compile(
    r"\.(tmp|temp|part|partial|crdownload|download|filepart|inprogress|writing|_COPYING_)$"
    r"|^\..+\.[A-Za-z0-9]{6}$|(^|[._])temporary$",
    re.IGNORECASE,
)


def unfinished(raw: Path, path: str) -> dict[date, Path]:
    """Day -> the first of its files that has the name of one that is being written."""
    if is_url(path) or not raw.is_dir():
        return {}
    top = raw / PurePosixPath(path).parts[0] if not (raw / path).exists() else raw / path
    found: dict[date, Path] = {}
    for file in sorted(top.rglob("*") if top.is_dir() else raw.glob("*")):
        name = file.relative_to(raw)
        if any(UNFINISHED.search(part) for part in name.parts) and file.is_file():
            with suppress(InputError):  # no date in its name, so no day's
                found.setdefault(day_of(str(name)), file)
    return found


def check_names(unfinished: Mapping[date, Path], day: date) -> None:
    """Raise InputError where a file of the day has the name of one that is being written."""
    if day in unfinished:
        raise InputError(
            f"{unfinished[day]} is still being written, by its name: wait until it is whole, or remove it if its writer is gone"
        )


def check_marker(pieces: Sequence[Piece], arrives: Arrives, marker: str | None, day: date) -> None:
    """Raise InputError where the file that says that a unit is whole is not there.

    It lies in the folder of a unit or in one above it that is still of the day; beside a file it is MARKER-FILE, as in
    _SUCCESS-2026-02-03.csv.
    """
    for piece in pieces if marker is not None else ():
        if is_url(piece.location):
            continue
        file = Path(piece.location)
        names = PurePosixPath(piece.name)
        above = [file.parents[n] for n, parent in enumerate(names.parents) if _is_of(str(parent), day)]
        places = [file.with_name(f"{marker}-{file.name}")] if arrives == "by_file" else [each / str(marker) for each in above]
        if not any(place.is_file() for place in places):
            raise InputError(
                f"{places[0]} is not there, the file that daily.marker waits for: wait until the day is whole, or set "
                "daily.marker to null"
            )


def check_quiet(pieces: Sequence[Piece], seconds: float, now: float) -> None:
    """Raise InputError where a file changed less than `seconds` before `now`, in seconds since 1970."""
    for piece in pieces if seconds else ():
        if not is_url(piece.location):
            age = now - Path(piece.location).stat().st_mtime
            if age < seconds:
                raise InputError(
                    f"{piece.location} changed {max(age, 0):.0f} s ago, and daily.quiet_seconds asks for {seconds:g}: wait, or "
                    "lower it"
                )


def ends_within_a_line(piece: Piece) -> bool:
    """Whether the last line of a file of plain text has no end, as while it is written. Some writers leave it out, too."""
    file = Path(piece.location)
    if is_url(piece.location) or file.suffix not in (*TEXT_SUFFIXES, *JSON_SUFFIXES) or suffix_of(file.name) != file.suffix:
        return False
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 1))
        return stream.read() not in (b"\n", b"\r", b"")


def _is_of(name: str, day: date) -> bool:
    try:
        return day_of(name) == day
    except InputError:
        return False
