"""The day that a unit of arrival belongs to, by the date in its name."""

import re
from collections.abc import Iterable
from datetime import date

from recsys.data.piece import Piece
from recsys.errors import InputError

DATE = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")


def day_of(unit: str) -> date:
    """The last date in the name of a unit, as in events/day=2026-02-03 or logs/20260203.csv. Raises InputError without one."""
    for year, month, day in reversed(DATE.findall(unit)):
        try:
            return date(int(year), int(month), int(day))
        except ValueError:  # digits that are no day of the calendar
            continue
    raise InputError(
        f"{unit or 'events.path'} has no date in its name, such as day=2026-02-03: name a day's files or folder so"
    )


def up_to(pieces: Iterable[Piece], until: date) -> list[Piece]:
    """The pieces of days that are not after `until`. Raises InputError where there are none."""
    found = list(pieces)
    kept = [piece for piece in found if day_of(piece.unit) <= until]
    if not kept:
        first = min(day_of(piece.unit) for piece in found)
        raise InputError(f"the log begins on {first}, after {until}: name a later day")
    return kept
