"""What a schedule runs: one config, log and workspace. Kept in a file, so that each of Dagster's processes reads the same."""

import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import Field

from recsys.daily_config import DailyConfig
from recsys.errors import InputError
from recsys.spec import Spec

VARIABLE = "RECSYS_SCHEDULE"  # the file's path, in the environment of Dagster's processes
FILE = "schedule.json"


class Target(Spec):
    """Paths are absolute, but for the name of a shipped config."""

    config: str
    data: Path
    workspace: Path
    directory: Path = Field(description="where the commands run: a relative MLflow store lies there")
    first_day: date = Field(description="the first daily partition")
    events: dict[str, Any] = Field(description="the config's data.events; the whole config would take a gigabyte of imports")
    daily: DailyConfig
    overrides: tuple[str, ...] = ()
    store: str | None = None
    endpoint: str | None = Field(None, description="URL of a running endpoint, which is to reload")
    at: str | None = Field(
        None, pattern=r"^([01]?\d|2[0-3]):[0-5]\d$", description="time of day in UTC, HH:MM; none: as data arrives"
    )
    every_s: int = Field(60, ge=1, description="between looks at the raw folder")
    retries: int = Field(3, ge=0, description="of a step that failed for another reason than its input")
    retry_s: float = Field(60, gt=0, description="before the first retry; it doubles with each")
    stale_h: float = Field(36, gt=0, description="without a new decision about the champion, after which it counts as stale")

    @classmethod
    def of_environment(cls) -> "Target":
        """The target that `RECSYS_SCHEDULE` names. Raises InputError where it names none."""
        if not (named := os.environ.get(VARIABLE)):
            raise InputError(f"{VARIABLE} is not set: start Dagster by `recsys schedule`, or name the {FILE} that it wrote")
        if not Path(named).is_file():
            raise InputError(f"{VARIABLE} names {named}, which does not exist: run `recsys schedule` once, which writes it")
        return cls.model_validate_json(Path(named).read_text())

    def write(self, folder: Path) -> Path:
        """Write the file atomically and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{FILE}.{os.getpid()}"
        scratch.write_text(self.model_dump_json(indent=1) + "\n")
        return scratch.rename(folder / FILE)

    def command(self, day: str | None = None, step: str | None = None) -> list[str]:
        """`recsys daily` with this target's options, by this Python."""
        pairs = {
            "--config": self.config, "--data": self.data, "--workspace": self.workspace, "--store": self.store,
            "--endpoint": self.endpoint, "--day": day, "--step": step,
        }  # fmt: skip
        given = [word for name, value in pairs.items() if value is not None for word in (name, str(value))]
        return [
            sys.executable,
            "-m",
            "pipelines.cli",
            "daily",
            *given,
            *(w for each in self.overrides for w in ("--set", each)),
        ]
