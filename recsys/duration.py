"""Spans of time as people write them in a config: "30m", "7d"."""

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
DAY_MS = MS["d"]


@lru_cache(1024)
def milliseconds(text: str) -> int:
    """A number and its unit in milliseconds. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", text)
    if not found:
        raise ValueError(f'{text!r} is not a duration: write a number and one of ms, s, m, h, d, w, as in "30m" or "7d"')
    return round(float(found[1]) * MS[found[2]])


def duration_text(duration_ms: int) -> str:
    """The shortest exact way to write it: `milliseconds` reads it back."""
    unit = next(unit for unit, size in MS.items() if duration_ms % size == 0 and (duration_ms or size == 1))
    return f"{duration_ms // MS[unit]}{unit}"


def _parse(value: Any) -> int:
    if not isinstance(value, str):  # a bare number would leave the unit to be guessed
        raise ValueError(f'{value!r} is not a duration: write it as text with its unit, as in "30m" or "7d"')
    return milliseconds(value)


Duration = Annotated[int, BeforeValidator(_parse), PlainSerializer(duration_text, return_type=str)]  # milliseconds, from text
