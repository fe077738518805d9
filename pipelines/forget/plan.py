"""How far a run that forgets is, in a file that is written after each step, so that a killed run goes on."""

import json
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from recsys.errors import InputError

Method = Literal["retrain", "dampen", "unlearn"]
METHODS: tuple[Method, ...] = ("retrain", "dampen", "unlearn")
PLAN_FOLDER, PLAN_FILE = ".forget", "plan.json"
FORGOTTEN_FILE = "forgotten.json"


class Plan:
    """The users, the method and what each finished step found. Raises InputError where another run was left half done."""

    def __init__(self, root: Path, users: Collection[str], method: Method):
        self.folder = root / PLAN_FOLDER
        asked = {"users": sorted(set(users)), "method": method}
        if (self.folder / PLAN_FILE).is_file():
            self.state: dict[str, Any] = json.loads((self.folder / PLAN_FILE).read_text())
            if {name: self.state[name] for name in asked} != asked:
                whom = " ".join(self.state["users"][:5]) + (" ..." if len(self.state["users"]) > 5 else "")
                raise InputError(
                    f"{self.folder / PLAN_FILE} is of a run that was stopped half-way: finish it first with "
                    f"`recsys forget {whom} --method {self.state['method']}`"
                )
        else:
            self.state = {**asked, "began": datetime.now(UTC).isoformat(timespec="seconds"), "steps": {}}

    @property
    def steps(self) -> dict[str, Any]:
        return dict(self.state["steps"])

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """What the step found, now or when it was done."""
        if name not in self.state["steps"]:
            self.state["steps"][name] = work()
            write_json(self.folder / PLAN_FILE, self.state)
        return self.state["steps"][name]


def write_json(path: Path, content: Any) -> None:
    """All of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    scratch.rename(path)


def remember(root: Path, users: Collection[str]) -> None:
    """Add to the users whose rows are passed over when they come again."""
    path = root / FORGOTTEN_FILE
    before = json.loads(path.read_text())["users"] if path.is_file() else []
    write_json(path, {"users": sorted({*before, *users})})
