"""How a workspace of daily runs stands: its days, its champion, and what someone should look at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from pipelines.daily.layout import Layout
from pipelines.daily.lock import holder, is_held
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
    before = holder(layout.lock)
    states = {day.isoformat(): DayState.load(layout.state(day)) for day in layout.days()}
    if not states:
        raise InputError(f"{root} has no days: run one with `recsys daily`, or name its folder with --workspace")
    newest = max(states)
    number, born = champion(states, newest)
    running = before or holder(layout.lock)  # a run may end while its days are read
    main = config.promotion.main_metric(config.evaluation.ks[0])
    found = {
        "workspace": str(root), "newest_day": newest, "status": states[newest].status, "running": running,
        "champion": {"version": number, "day": born}, "metric": main,
        "days": [_row(states[name], main) for name in sorted(states)[-SHOWN_DAYS:]],
    }  # fmt: skip
    alarms = [*_day_alarms(states[newest], running), *_known_alarms(states[newest])]
    if not is_held(layout.lock):  # a name in the lock alone may be that of another machine's run that was killed
        alarms += _silent(config.daily.alarm_silent_hours, states, now)
    return Status(found, alarms)


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


def _day_alarms(state: DayState, running: str | None) -> Iterator[Alarm]:
    """Of the newest day's run: that it stopped, failed or was interrupted."""
    if state.status in ("stopped", "failed"):
        stays = "" if state.is_done("promote") else ", and the champion stays"
        yield Alarm(
            f"day {state.status}", None, None,
            f"{state.day} {state.status}{stays}: {state.error}. When it is mended, run `recsys daily` again",
        )  # fmt: skip
    elif state.status == "running" and running is None:
        done = ", ".join(state.steps) or "nothing"
        yield Alarm(
            "day interrupted", None, None,
            f"{state.day} was begun and no run goes on with it (done: {done}): run `recsys daily` again",
        )  # fmt: skip


def _silent(limit: float | None, states: Mapping[str, DayState], now: datetime) -> Iterator[Alarm]:
    """That no day was run for too long."""
    ended = [datetime.fromisoformat(step.ended) for each in states.values() for step in each.steps.values()]
    hours = (now - max(ended)).total_seconds() / 3600 if ended else 0.0
    if limit is not None and hours > limit:
        yield Alarm(
            "silent", hours, limit,
            f"The last step of any day ended {hours:.1f} hours ago, more than daily.alarm_silent_hours {limit:g}: see whether "
            "the schedule still starts `recsys daily`, and whether the log still arrives",
        )  # fmt: skip


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
