"""What every step of a day is given."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.workspace import Workspace
from recsys.config import RunConfig


@dataclass(frozen=True)
class Today:
    """`state` is what day.json holds; steps change it, and `run_day` writes it."""

    config: RunConfig
    raw: Path
    layout: Layout
    day: date
    state: DayState
    full: bool = False
    endpoint: str | None = None
    uri: str | None = None
    console: Console | None = None

    @property
    def workspace(self) -> Workspace:
        return self.layout.workspace(self.day)

    @property
    def newer_day(self) -> date | None:
        """A later day that is done: this one comes too late to be the champion."""
        later = [day for day in self.layout.days() if day > self.day]
        return next((day for day in later if DayState.load(self.layout.state(day)).is_done("promote")), None)

    def save(self) -> None:
        self.state.save(self.layout.state(self.day))


Step = Callable[[Today], dict[str, Any]]
