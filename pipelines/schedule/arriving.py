"""Which days lie in the raw folder, and which of them a schedule should run now. Reads names, sizes and times."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.monitor.files import check_marker, check_names, check_quiet, unfinished
from recsys.data.days import day_of
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.daily_config import DailyConfig
    from recsys.data.piece import Piece
    from recsys.data.source import Events

DAY_S = 86_400
Seen = dict[str, dict[str, str]]  # day -> mark at the last look, and the mark with which a run was asked for


@dataclass(frozen=True)
class There:
    """Days of the raw folder, ascending, by name: `whole` with a mark that changes when their files do, `waiting` with why."""

    whole: dict[str, str]
    waiting: dict[str, str]


def find_days(events: "Events", raw: Path) -> "dict[date, list[Piece]]":
    """The files of every day, ascending. Raises InputError where the log is not in daily partitions."""
    if events.arrives == "together":
        raise InputError(
            "data.events.arrives is together, which has no days: set it to by_folder or by_file, with dates in the names"
        )
    found: dict[date, list[Piece]] = {}
    for piece in events.list_pieces(raw):
        found.setdefault(day_of(piece.unit), []).append(piece)
    return dict(sorted(found.items()))


def look(events: "Events", rules: "DailyConfig", raw: Path, now: float) -> There:
    """The days, held against the names, the marker and the quiet time of the `daily` section; `now` in seconds since 1970."""
    found, written = There({}, {}), unfinished(raw, events.path)
    for day, pieces in find_days(events, raw).items():
        try:
            check_names(written, day)
            check_marker(pieces, events.arrives, rules.marker, day)
            check_quiet(pieces, rules.quiet_seconds, now)
            found.whole[day.isoformat()] = _mark(pieces)
        except (InputError, FileNotFoundError) as error:  # a file may be renamed between two looks at it
            found.waiting[day.isoformat()] = str(error)
    return found


def runnable(there: There, first: date, now: float, utc_offset_hours: float) -> There:
    """With the days that Dagster has no partition for among those that wait: it would take none of the others either.

    `first`: that of its partitions. A day is to be over in UTC, and by the clock that the log is cut by.
    """
    waiting = dict(there.waiting)
    for name in there.whole:
        day = date.fromisoformat(name)
        ended = datetime.combine(day, time(), UTC).timestamp() + DAY_S + max(0.0, -utc_offset_hours) * 3600
        if day < first:
            waiting[name] = f"{name} came after the schedule began with {first}: start `recsys schedule` again to run it"
        elif now < ended:
            waiting[name] = f"{name} is not over yet"
    return There({name: mark for name, mark in there.whole.items() if name not in waiting}, waiting)


def newest_done(workspace: Path) -> str | None:
    """The newest day whose run ended well, or None before the first."""
    layout = Layout(workspace)
    done = (day for day in reversed(layout.days()) if DayState.load(layout.state(day)).status == "done")
    return next((day.isoformat() for day in done), None)


def wanted(whole: dict[str, str], seen: Seen | None, *, done: str | None, marked: bool) -> tuple[list[str], Seen]:
    """The days to run now, oldest first, and what is to be remembered for the next look.

    `whole`: day -> mark; `seen`: what the last look remembered, None at the first one; `done`: the newest day that was run;
    `marked`: whether a marker says that a day is whole. Without one a day is run once its files are the same in two looks.
    A day whose files change afterwards is run again. The first look leaves alone what is no newer than `done`, and, where no
    day was run yet, all but the newest: the earlier ones are part of its dataset.
    """
    if seen is None:
        old = [day for day in whole if day <= done] if done else list(whole)[:-1]
        seen = {day: {"seen": whole[day], "asked": whole[day]} for day in old}
    run, now = [], dict(seen)  # a day that is away for a while is no new one when it is back
    for day, mark in whole.items():
        before = seen.get(day, {})
        now[day] = {**before, "seen": mark}
        if before.get("asked") != mark and (marked or before.get("seen") == mark):
            run.append(day)
            now[day]["asked"] = mark
    return run, now


def _mark(pieces: "Sequence[Piece]") -> str:
    """Of names, sizes and times; of a URL its text."""
    states: list[Any] = []
    for piece in pieces:
        file = Path(piece.location)
        states.append([piece.name, piece.bytes, file.stat().st_mtime_ns if file.is_absolute() else piece.location])
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]
