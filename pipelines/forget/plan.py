"""How far a run that forgets is, in a file that is written after each step, so that a killed run goes on."""

import json
import shlex
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipelines.daily.layout import Layout
from recsys.errors import InputError

Method = Literal["retrain", "dampen", "unlearn"]
METHODS: tuple[Method, ...] = ("retrain", "dampen", "unlearn")
PLAN_FOLDER, PLAN_FILE = ".forget", "plan.json"


class Plan:
    """The users, the method and what each finished step found. Raises InputError where another run was left half done."""

    def __init__(self, root: Path, users: Collection[str], method: Method):
        self.folder = root / PLAN_FOLDER
        asked = {"users": sorted(set(users)), "method": method}
        if (self.folder / PLAN_FILE).is_file():
            self.state: dict[str, Any] = json.loads((self.folder / PLAN_FILE).read_text())
            if {name: self.state[name] for name in asked} != asked:
                require_finished(root)
        else:
            self.state = {**asked, "began": datetime.now(UTC).isoformat(timespec="seconds"), "steps": {}}

    @property
    def began_ms(self) -> int:
        """Milliseconds since 1970, rounded down to a second."""
        return round(datetime.fromisoformat(self.state["began"]).timestamp() * 1000)

    @property
    def steps(self) -> dict[str, Any]:
        return dict(self.state["steps"])

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """What the step found, now or when it was done."""
        if name not in self.state["steps"]:
            self.state["steps"][name] = work()
            write_json(self.folder / PLAN_FILE, self.state)
        return self.state["steps"][name]


def require_finished(root: Path) -> None:
    """Raise InputError where a run that forgets was stopped half-way: until it is done, some files have the users."""
    path = root / PLAN_FOLDER / PLAN_FILE
    if path.is_file():
        state = json.loads(path.read_text())
        whom = shlex.join(state["users"][:5]) + (" ..." if len(state["users"]) > 5 else "")
        raise InputError(
            f"{path} is of a run that was stopped half-way: finish it first with `recsys forget {whom} --method "
            f"{state['method']}` and its other options"
        )


def write_json(path: Path, content: Any) -> None:
    """All of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    scratch.rename(path)


def remember(layout: Layout, users: Collection[str]) -> None:
    """Add to the users whose rows are passed over when they come again."""
    write_json(layout.forgotten, {"users": sorted({*layout.forgotten_users(), *users})})
