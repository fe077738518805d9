"""A small log with a config of its own, and `recsys daily` on it in child processes that a fault may strike."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.faults.fault import Fault, end
from benchmarks.faults.warm import LOOK, Process, Warm
from pipelines.daily.state import STEPS
from pipelines.workspace import config_path
from recsys.simulate import Simulation, simulate

NAME = "faults"
THREADS = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
HANGS_S = 180.0  # a run that takes longer hangs
PARTS = {
    "retriever": {"encoder": {"dim": 16}, "fit": {"epochs": 2}},
    "ranker": {"sharing": {"experts": 2, "hidden": 8}, "fit": {"epochs": 1, "batch_size": 256}},
    # no gate that depends on how good so small a model is; parity, the bundle's files and the rest are judged
    "continual": {"full_on_drift": None},  # of a log that is days old, every weekday is news
    "promotion": {"floor": None, "champion": None, "slices": {}},
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a run ended. `status`: negative where a signal ended it, None where it hung; `said`: the last that it printed."""

    status: int | None
    seconds: float
    struck: bool
    said: str

    @property
    def how(self) -> str:
        if self.status is None:
            return "hung"
        word = "went through" if self.status == 0 else f"exit {self.status}" if self.status > 0 else f"signal {-self.status}"
        return word if self.struck else f"{word}, too soon"


@dataclass
class World:
    """`home` has the raw log and everything that the runs write, but for the store; `uri` is where they find that."""

    home: Path
    uri: str
    sets: dict[str, Any] = field(default_factory=dict)
    warm: Warm | None = None  # what runs are forked from, to be quick; without it each is started anew

    @property
    def raw(self) -> Path:
        return self.home / "raw"

    @property
    def root(self) -> Path:
        return self.home / "days-of-faults"

    @property
    def config(self) -> Path:
        return self.home / "faults.yaml"

    @property
    def days(self) -> list[str]:
        return sorted(path.name.removeprefix("day=") for path in (self.raw / "events").iterdir())

    def make(self, *, days: int, users: int, events: int) -> "World":
        self.home.mkdir(parents=True, exist_ok=True)
        simulate(Simulation(users=users, items=150, events=events, days=days), self.raw)
        document = yaml.safe_load(config_path("demo").read_text())
        self.config.write_text(yaml.safe_dump(merged(document, {"name": NAME, **PARTS, **self.sets})))
        (self.home / "tmp").mkdir(exist_ok=True)
        return self

    def daily(
        self, day: str, *, step: str | None = None, fault: Fault | None = None, at: str | None = None, after_s: float = 0.0,
        rng: random.Random | None = None, url: str | None = None, full: bool = False,
    ) -> Ended:  # fmt: skip
        """Run a day, or one step of it. The fault strikes so many seconds after the run began step `at`, and only if the step
        is not done by then: the process stands still meanwhile."""
        fault, rng = fault or Fault(), rng or random.Random(0)
        began, struck, before = time.monotonic(), False, self._mark(day)
        with tempfile.TemporaryDirectory(prefix="recsys-said-") as scratch:
            said = Path(scratch) / "said"
            process = self._start([*self._arguments(day, step, url), *(["--full"] if full else [])], fault, said)
            try:
                if at is not None and self._comes_to(process, day, at, before):
                    began = time.monotonic()
                    if not _ended(process, after_s):
                        with _standing_still(process):
                            struck = at not in self.state(day)["steps"]
                            if struck:
                                fault.strike(process, rng)
                status = process.returncode if _ended(process, HANGS_S) else None
            finally:
                end(process)
                fault.mend()
            return Ended(status, time.monotonic() - began, struck, said.read_text(errors="replace")[-3000:])

    def look(self) -> tuple[dict[str, Any], list[str], dict[str, int]]:
        """What `outcome`, `leftovers` and `passed` say of this world, by another process."""
        with tempfile.TemporaryDirectory(prefix="recsys-said-") as scratch:
            said = Path(scratch) / "said"
            process = self._start([LOOK, str(self.root), NAME, self.uri], Fault(), said)
            status = process.wait()
            assert status == 0, said.read_text()
            outcome, left, good = json.loads(said.read_text().splitlines()[-1])
            return outcome, left, good

    def _start(self, arguments: list[str], fault: Fault, said: Path) -> Process:
        """A process of its own; from the warm one, unless the fault needs something in its environment from the start."""
        if self.warm is not None and not fault.environment():
            return self.warm.start(arguments, cwd=self.home, environment=self._variables(), said=said)
        environment = {**os.environ, **THREADS, **self._variables(), **fault.environment()}
        with said.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faults.warm", *arguments], cwd=self.home, env=environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def _arguments(self, day: str, step: str | None, url: str | None) -> list[str]:
        command = ["daily", "--config", str(self.config), "--data", str(self.raw)]
        command += ["--workspace", str(self.root), "--store", self.uri, "--day", day]
        return [*command, *(["--step", step] if step else []), *(["--endpoint", url] if url else [])]

    def state(self, day: str) -> dict[str, Any]:
        path = self.root / "days" / day / "day.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"steps": {}, "status": "not begun"}
        return found

    def _variables(self) -> dict[str, str]:
        return {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(self.home / "tmp"), "COLUMNS": "300"}

    def _mark(self, day: str) -> tuple[int, int] | None:
        """What changes when a run writes day.json, which it does as it begins a step."""
        path = self.root / "days" / day / "day.json"
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _comes_to(self, process: Process, day: str, step: str, mark: tuple[int, int] | None) -> bool:
        """Wait until the run has begun the step; False where it ended before. `mark`: of day.json before the run."""
        before = STEPS[: STEPS.index(step)]
        while process.poll() is None:
            if self._mark(day) != mark:
                steps = self.state(day)["steps"]
                if step not in steps and all(name in steps for name in before):
                    return True
            time.sleep(0.002)
        return False


@contextmanager
def _standing_still(process: Process) -> Iterator[None]:
    """Stop the process and its children within the block, so that nothing goes on between a look and a blow."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    for _ in range(100):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "TZ":
            break
        time.sleep(0.001)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)


def merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The document with what is changed, section by section; None takes a value away."""
    both = dict(document)
    for name, value in changes.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return both


def _ended(process: Process, within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True
