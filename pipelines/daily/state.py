"""How far a day is: day.json, written whole after each step."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.errors import InputError

STEPS = ("arrive", "prepare", "train", "evaluate", "export", "promote", "reload", "report")

Status = Literal["running", "done", "stopped", "failed"]


class StepState(BaseModel):
    model_config = ConfigDict(extra="forbid")

    state: Literal["done", "failed"]
    began: str  # ISO 8601, UTC
    ended: str
    seconds: float
    detail: dict[str, Any] = Field(default_factory=dict)


class DayState(BaseModel):
    """What day.json holds. `raw`: arrival unit -> fingerprint of its files, of this day alone."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    day: str
    status: Status = "running"
    mode: Literal["first", "warm", "full"] | None = None  # None: not decided yet
    why: str = ""  # this mode
    start: str | None = Field(None, alias="from")  # the day whose model training began from
    raw: dict[str, str] = Field(default_factory=dict)
    steps: dict[str, StepState] = Field(default_factory=dict)
    alarms: list[dict[str, Any]] = Field(default_factory=list)
    error: str | None = None
    decision: dict[str, Any] | None = None
    champion: dict[str, int | None] = {"before": None, "after": None}
    pruned: bool = False

    def is_done(self, step: str) -> bool:
        return step in self.steps and self.steps[step].state == "done"

    def forget_from(self, step: str) -> None:
        """This step and those after it are to be done again."""
        for name in STEPS[STEPS.index(step) :]:
            self.steps.pop(name, None)

    def detail(self, step: str) -> dict[str, Any]:
        return self.steps[step].detail if step in self.steps else {}

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "DayState":
        """Raises InputError where the file is not one of these."""
        try:
            return cls.model_validate_json(path.read_text())
        except (ValidationError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is damaged ({str(error).splitlines()[0]}): remove it, and the day is done again"
            ) from error


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader, and a machine that loses power, finds the old text or the new one. For one writer."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a run that was killed, or whose disk was full
        left.unlink(missing_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with scratch.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
