"""The matrix: every fault strikes every step of a day, which is run again; then it has to be as the undisturbed one."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.faults.asked import Asked, endpoint
from benchmarks.faults.fault import Fault
from benchmarks.faults.same import differences
from benchmarks.faults.snapshots import Snapshots
from benchmarks.faults.world import NAME, Ended
from benchmarks.mlflow_server import Server
from pipelines.daily.state import STEPS

WENT_THROUGH = "went through"
TRIES = 3  # runs after the fault before the day counts as stuck
SHARES = (1.0, 0.3, 0.0)  # of the seeded moment, tried in turn while a step is over sooner than that
FOLLOWED = ("promote", "reload")  # steps that an endpoint runs beside, which follows the champion
EVERY_S = 1.0  # it looks
Unlike = Literal["same", "champion not judged", "from scratch"]
EQUAL: dict[Unlike, str] = {
    "same": "equal", "champion not judged": "equal, champion not judged", "from scratch": "equal to a day from scratch",
}  # fmt: skip


@dataclass
class Cell:
    """`hit`: how the struck run ended and what it said; `again`: how the runs after it did; `lost`: what differs then."""

    fault: str
    step: str
    hit: str = "not struck"
    note: str = ""
    again: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    answers: int = 0
    unlike: Unlike = "same"
    said: str = ""

    @property
    def is_good(self) -> bool:
        """A run that was struck may fail, but not hang, and the one after it may not fail."""
        return not self.lost and self.hit not in ("hung", "not struck") and self.again == [WENT_THROUGH]

    @property
    def verdict(self) -> str:
        if self.is_good:
            return EQUAL[self.unlike] + (f", {self.answers} answers" if self.answers else "")
        return f"{', '.join(self.again)}; {'; '.join(self.lost)}"[:300]


@dataclass
class Bench:
    """A world whose days are done up to the day that is struck, and what that one came to when nothing struck it.

    `server` is MLflow's where the store is one; it runs only while a cell does. `seconds`: how long each step took.
    """

    snapshots: Snapshots
    day: str
    server: Server | None = None
    expected: dict[str, Any] = field(default_factory=dict)
    from_scratch: dict[str, Any] = field(default_factory=dict)  # what the day comes to with --full
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def world(self) -> Any:
        return self.snapshots.world

    @contextmanager
    def store(self) -> Iterator[None]:
        if self.server is None:
            yield
            return
        self.server.start()
        try:
            yield
        finally:
            self.server.kill()

    def prepare(self, steps: Sequence[str] = STEPS) -> "Bench":
        """Run the day before, then the day step by step; a snapshot before each of `steps`. Raises AssertionError where one
        fails."""
        with self.store():
            _go(self.world.daily(self.world.days[-2]))
        for step in STEPS:
            if step in steps:
                self.snapshots.take(step)
            with self.store():
                _go(self.world.daily(self.day, step=step))
            self.seconds[step] = self.world.state(self.day)["steps"][step]["seconds"]
        with self.store():
            _go(self.world.daily(self.day))
            self.expected, left, _ = self.world.look()
            assert not left, left
        return self

    def prepare_from_scratch(self) -> "Bench":
        """What the day comes to that trains from scratch."""
        self.snapshots.put_back("train")
        with self.store():
            _go(self.world.daily(self.day, full=True))
            self.from_scratch, _, _ = self.world.look()
        return self

    def cell(self, fault: Fault, step: str, seed: int, *, unlike: Unlike = "same") -> Cell:
        """Strike a step that begins from its snapshot, then run the day to its end. `unlike`: what the day may come to where an
        earlier one has lost what cannot be made again."""
        found = Cell(fault.name, step, unlike=unlike)
        for share in SHARES:
            self.snapshots.put_back("promote" if step in FOLLOWED else step)
            with self.store(), self._followed(step) as (url, asked):
                if step == "reload":
                    _go(self.world.daily(self.day, step="promote"))
                if self._struck(found, fault, share, seed, url):
                    self._again(found, url)
                    found.lost = self._lost(asked, unlike, found.note)
                    found.answers = asked.total if asked else 0
                    return found
        return found

    def chain(self, faults: dict[str, Fault], seed: int) -> Cell:
        """A day of which each of these steps is struck in turn, beside an endpoint that is asked all the time."""
        found = Cell(" ".join(dict.fromkeys(fault.name for fault in faults.values())), "all", hit="")
        self.snapshots.put_back("arrive")
        with self.store(), endpoint(NAME, self.world.uri, self.world.home / "live", every_s=EVERY_S) as (url, asked):
            for step, fault in faults.items():
                one = Cell(fault.name, step)
                self._struck(one, fault, 0.3, seed, url)
                found.hit += f"{step}: {fault.name}, {one.hit}. "
                if self.world.state(self.day)["steps"].get(step, {}).get("state") != "done":
                    _go(self.world.daily(self.day, step=step, url=url))
            self._again(found, url)
            found.lost, found.answers = self._lost(asked), asked.total
        return found

    def _followed(self, step: str) -> Any:
        live = self.world.home / "live"
        return endpoint(NAME, self.world.uri, live, every_s=EVERY_S) if step in FOLLOWED else nullcontext((None, None))

    def _struck(self, cell: Cell, fault: Fault, share: float, seed: int, url: str | None) -> bool:
        step = cell.step
        rng = random.Random(f"{seed} {fault.name} {step}")
        fault.prepare(self.world.raw, self.world.root, self.day)
        seconds = max(self.seconds[step], EVERY_S if step == "reload" else 0.0)
        ended = self.world.daily(
            self.day, step=step, at=step, fault=fault, after_s=share * rng.random() * seconds, rng=rng, url=url
        )
        cell.hit, cell.note = ended.how if ended.struck else "not struck", fault.note or _last_line(ended)
        cell.said = ended.said if ended.status is None else ""
        return bool(ended.struck)

    def _again(self, cell: Cell, url: str | None) -> None:
        for _ in range(TRIES):
            ended = self.world.daily(self.day, url=url)
            cell.again.append(WENT_THROUGH if ended.status == 0 else ended.how)
            if ended.status == 0:
                return
            cell.said = ended.said

    def _lost(self, asked: Asked | None, unlike: Unlike = "same", struck: str = "") -> list[str]:
        """What is not as it should be, the endpoint's answers included."""
        outcome, left, good = self.world.look()
        expected = self.from_scratch if unlike == "from scratch" else self.expected
        if unlike != "same":  # the file stays damaged, the champion came from it, and the reason says so
            expected, outcome = (_without(each, f"file/{struck}", "/champion/", "/why") for each in (expected, outcome))
        found = [*differences(expected, outcome), *(f"{each} was left" for each in left)]
        if asked is not None:
            found += [
                f"{count} answers of {name}, which did not pass" for name, count in asked.versions.items() if name not in good
            ]
            found += [f"{count} requests failed: {how}" for how, count in asked.failed.items()]
            found += [] if asked.total else ["the endpoint was not asked"]
        return found


def _without(outcome: dict[str, Any], *words: str) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if not any(word in name for word in words)}


def _go(ended: Ended) -> None:
    assert ended.status == 0, ended.said


def _last_line(ended: Ended) -> str:
    """What a run that failed said in the end."""
    lines = [line.strip() for line in ended.said.splitlines() if line.strip()]
    return lines[-1][:160] if lines and ended.status not in (0, -9) else ""
