"""A figure that someone should look at."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Alarm:
    """`sentence` has the figure, the limit and what to do."""

    name: str
    value: float | None
    limit: float | None
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
