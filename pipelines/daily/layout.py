"""Where the days of a workspace lie."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipelines.workspace import Workspace
from recsys.data.location import natural
from recsys.errors import InputError

STATE_FILE, REPORT_FILE, REPORT_JSON = "day.json", "report.md", "report.json"
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Layout:
    """`root` holds a folder per day, each a workspace of its own. A day that was done again leaves its former folder aside, as
    DAY.N, as long as a model in use came from it."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def forgotten(self) -> Path:
        """Users that stay forgotten: {"users": [ID, ...]}. Rows of theirs that come later are passed over."""
        return self.root / "forgotten.json"

    def folder(self, day: date) -> Path:
        return self.root / "days" / day.isoformat()

    def workspace(self, day: date) -> Workspace:
        return Workspace(self.folder(day))

    def champion(self, day: date) -> Workspace:
        """The champion's parameters in this day's vocabulary, and what they reach on its data."""
        return Workspace(self.folder(day) / "champion")

    def state(self, day: date) -> Path:
        return self.folder(day) / STATE_FILE

    def days(self) -> list[date]:
        """Days that were begun, ascending."""
        found = (path.parent.name for path in (self.root / "days").glob(f"*/{STATE_FILE}"))
        return sorted(date.fromisoformat(name) for name in found if DAY.fullmatch(name))

    def workspaces(self) -> Iterator[Workspace]:
        """Of all days, the newest first, those set aside included."""
        folders = [path.parent for path in (self.root / "days").glob(f"*/{STATE_FILE}")]
        for folder in sorted(folders, key=lambda path: natural(path.name), reverse=True):
            if not folder.name.startswith("."):
                yield Workspace(folder)

    def aside(self, day: date) -> Path:
        """A name for the folder of a day that is done again."""
        number = 1
        while self.folder(day).with_name(f"{day}.{number}").exists():
            number += 1
        return self.folder(day).with_name(f"{day}.{number}")

    def forgotten_users(self) -> list[str]:
        """Raises InputError where their file is damaged: passed over, it would bring them back."""
        try:
            return list(json.loads(self.forgotten.read_text())["users"]) if self.forgotten.is_file() else []
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'{self.forgotten} is damaged ({error!r}): restore it, or write it anew: {{"users": [ID, ...]}}'
            ) from error
