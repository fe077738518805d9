"""Requests as the journal of a server has them: JSON lines in `journal/requests` below the server's folder."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError, model_validator

from recsys.errors import InputError
from recsys.spec import Spec

FOLDER = Path("journal") / "requests"


class Logged(Spec):
    """All that the graphs read for one request, and what they said. Ids are external; lists of a history are oldest first."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    request_id: str
    user_id: str | None = None
    known: bool = True  # false where the endpoint took the user for unknown, as one who was forgotten
    time_ms: int
    version: str
    history: tuple[str, ...]
    history_ms: tuple[int, ...]
    behaviours: tuple[int, ...]
    context: dict[str, str] = Field(default_factory=dict)
    items: tuple[str, ...]
    dense: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # by feature, of each item
    tasks: dict[str, tuple[float | None, ...]]  # by task, of each item; null where the ranker did not see it

    @model_validator(mode="after")
    def _lists_fit(self) -> "Logged":
        if not len(self.history) == len(self.history_ms) == len(self.behaviours):
            raise ValueError("history, history_ms and behaviours have different lengths")
        for name, values in {**self.dense, **self.tasks}.items():
            if len(values) != len(self.items):
                raise ValueError(f"{name} has {len(values)} values for {len(self.items)} items")
        return self


def logged_requests(live: Path) -> list[Logged]:
    """All logged requests of a server, by time. Raises InputError where there are none, or for a line that is none."""
    found = sorted(_lines(live / FOLDER), key=lambda each: (each.time_ms, each.request_id))
    if not found:
        raise InputError(f"{live / FOLDER} has no logged requests: serve with `logged_requests` above 0, and ask for lists")
    return found


def _lines(folder: Path) -> Iterator[Logged]:
    for path in sorted(folder.glob("*.ndjson")):
        whole, _, _ = path.read_bytes().rpartition(b"\n")  # what follows the last line end is still being written
        for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
            try:
                yield Logged.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(map(str, first["loc"])) or "the line"
                raise InputError(
                    f"{path}, line {number}: {place}: {first['msg']}: this is no logged request, remove the line"
                ) from error
