"""How a workspace of daily runs stands: its days, its champion, and what someone should look at."""

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.monitor.alarm import Alarm
from pipelines.monitor.alarms import champion
from recsys.errors import InputError

if TYPE_CHECKING:  # importing it takes seconds, which `recsys --help` need not spend
    from recsys.config import RunConfig

SHOWN_DAYS = 14


@dataclass(frozen=True)
class Status:
    """What `recsys status --json` prints, and whether an alarm stands."""

    found: dict[str, Any]
    alarms: list[Alarm]

    def to_json(self) -> dict[str, Any]:
        return {**self.found, "alarms": [alarm.to_json() for alarm in self.alarms]}


def read_status(config: "RunConfig", root: Path, now: datetime) -> Status:
    """`now` is the clock, with its time zone. Raises InputError where no day was begun."""
    layout = Layout(root)
    holder = _holder(layout.lock)
    states = {day.isoformat(): DayState.load(layout.state(day)) for day in layout.days()}
    if not states:
        raise InputError(f"{root} has no days: run one with `recsys daily`, or name its folder with --workspace")
    newest = max(states)
    number, born = champion(states, newest)
    running = holder or _holder(layout.lock)
    main = config.promotion.main_metric(config.evaluation.ks[0])
    found = {
        "workspace": str(root), "newest_day": newest, "status": states[newest].status, "running": running,
        "champion": {"version": number, "day": born}, "metric": main,
        "days": [_row(states[name], main) for name in sorted(states)[-SHOWN_DAYS:]],
    }  # fmt: skip
    return Status(found, [*_run_alarms(config, states, newest, running, now), *_known_alarms(states[newest])])


def _row(state: DayState, main: str) -> dict[str, Any]:
    arrived, judged = state.detail("arrive"), state.detail("evaluate").get("metrics", {})
    return {
        "day": state.day, "status": state.status, "mode": state.mode, "rows": arrived.get("rows"),
        "users": arrived.get("users"),
        main: judged.get(main), "outcome": (state.decision or {}).get("outcome"), "champion": state.champion.get("after"),
        "seconds": round(sum(step.seconds for step in state.steps.values()), 1), "alarms": len(state.alarms),
        "error": state.error,
    }  # fmt: skip


def _known_alarms(state: DayState) -> list[Alarm]:
    return [Alarm(alarm["name"], alarm["value"], alarm["limit"], alarm["sentence"]) for alarm in state.alarms]


def _run_alarms(
    config: "RunConfig", states: dict[str, DayState], newest: str, running: str | None, now: datetime
) -> Iterator[Alarm]:  # fmt: skip
    """Of the runs themselves: a day that stopped, failed or was interrupted, and none for too long."""
    state = states[newest]
    if state.status in ("stopped", "failed"):
        yield Alarm(
            f"day {state.status}", None, None,
            f"{newest} {state.status}, and the champion stays: {state.error}. When it is mended, run `recsys daily` again",
        )  # fmt: skip
    elif state.status == "running" and running is None:
        done = ", ".join(state.steps) or "nothing"
        yield Alarm(
            "day interrupted",
            None,
            None,
            f"{newest} was begun and no run goes on with it (done: {done}): run `recsys daily` again",
        )
    limit = config.daily.alarm_silent_hours
    ended = [datetime.fromisoformat(step.ended) for each in states.values() for step in each.steps.values()]
    hours = (now - max(ended)).total_seconds() / 3600 if ended else 0.0
    if limit is not None and hours > limit and running is None:
        yield Alarm(
            "silent", hours, limit,
            f"The last step of any day ended {hours:.1f} hours ago, more than daily.alarm_silent_hours {limit:g}: see whether "
            "the schedule still starts `recsys daily`, and whether the log still arrives",
        )  # fmt: skip


def _holder(lock: Path) -> str | None:
    """Who holds the lock, as its file says; None where nobody does. A killed run leaves its name, but not its process."""
    try:
        found = json.loads(lock.read_text())
        here = found["host"] == socket.gethostname()
        if here and not _is_alive(int(found["process"])):
            return None
        return f"{found['what']}, process {found['process']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def render(status: Status) -> Group:
    """The page for the terminal."""
    found = status.found
    main = found["metric"]
    table = Table(title=f"Days of {found['workspace']}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("day", "status", "training", "promotion"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "users", main, "s", "alarms"):
        table.add_column(name, justify="right")
    for row in found["days"]:
        colour = {"done": "green", "running": "cyan"}.get(row["status"], "red")
        table.add_row(
            row["day"], f"[{colour}]{row['status']}[/]", row["mode"] or "-", row["outcome"] or "-",
            *(_number(row[name]) for name in ("rows", "users", main, "seconds", "alarms")),
        )  # fmt: skip
    version, day = found["champion"]["version"], found["champion"]["day"]
    lines = [f"champion: {'none yet' if version is None else f'version {version}'}" + (f", trained on {day}" if day else "")]
    lines += [f"running: {escape(found['running'])}"] if found["running"] else []
    lines += [f"[bold red]alarm[/] {escape(alarm.name)}: {escape(alarm.sentence)}" for alarm in status.alarms]
    lines += [] if status.alarms else ["no alarm stands"]
    return Group(table, *lines)


def show(console: Console, status: Status) -> None:
    console.print(render(status), highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if value < 1 else f"{value:,.1f}"
