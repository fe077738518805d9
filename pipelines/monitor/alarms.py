"""What of a day someone should look at: its data, its training, its metrics, and how old the champion is."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.monitor.alarm import Alarm
from pipelines.monitor.arrived import LOOK_BACK, Arrived, days_before, flattened, median
from pipelines.monitor.stability import stability
from pipelines.monitor.training_health import Curve, failed_batches, read_curves, training_alarms
from pipelines.workspace import parts
from recsys.data.drift import relative

if TYPE_CHECKING:  # importing these takes seconds, which `recsys --help` need not spend
    from recsys.config import RunConfig
    from recsys.daily_config import DailyConfig

States = Mapping[str, DayState]  # by day, ISO


def day_alarms(config: "RunConfig", layout: Layout, state: DayState) -> list[Alarm]:
    """The alarms of a day, `state` being what is known of it so far; all else is read from the other days' files."""
    wanted = parts(config)
    days = {day.isoformat(): day for day in layout.days()}
    states = {name: DayState.load(layout.state(day)) for name, day in days.items()} | {state.day: state}
    earlier = [name for name in sorted(days) if name < state.day and states[name].is_done("train")][-LOOK_BACK:]
    workspace = layout.workspace(date.fromisoformat(state.day))
    return find_alarms(
        config, state.day, states,
        curves=read_curves(workspace, wanted) if state.is_done("train") else {},
        curves_before=[read_curves(layout.workspace(days[name]), wanted) for name in earlier],
        failed=failed_batches(workspace, wanted),
    )  # fmt: skip


def find_alarms(
    config: "RunConfig", day: str, states: States, *, curves: Mapping[str, Curve], curves_before: Sequence[Mapping[str, Curve]],
    failed: Mapping[str, Any],
) -> list[Alarm]:  # fmt: skip
    """The alarms of `day`: those of its data first, then of its training, its metrics and the champion."""
    past = flattened({name: state.detail("arrive") for name, state in states.items() if state.is_done("arrive")})
    found = past.get(day)
    earlier = [states[name] for name in sorted(states) if name < day and states[name].is_done("evaluate")][-LOOK_BACK:]
    return [
        *(data_alarms(found, days_before(day, past), config.daily) if found is not None else ()),
        *training_alarms(curves, curves_before, failed, config.daily.alarm_loss),
        *_metric_alarms(config, states[day], earlier),
        *_champion_alarms(states, day, config.daily.alarm_stale_days),
    ]


def data_alarms(found: Arrived, before: Sequence[Arrived], rules: "DailyConfig") -> Iterator[Alarm]:
    """Volume, schema and drift of a day that was accepted, beside the days before; none where there are none."""
    limit = rules.alarm_volume
    for what, number, counts in (
        ("rows", found.rows, [each.rows for each in before]), ("users", found.users, [each.users for each in before]),
    ):  # fmt: skip
        usual = median(counts)
        if limit is not None and usual is not None and (change := relative(usual, number)) > limit:
            word = "fewer" if number < usual else "more"
            yield Alarm(
                what, change, limit,
                f"{number:,} {what} came on {found.day}, many {word} than the {usual:,.0f} of the days before: a change of "
                f"{change:.0%} of the larger, more than daily.alarm_volume {limit:.0%}: ask what writes the log",
            )  # fmt: skip
    if before and (changes := _schema_changes(before[-1].schema, found.schema)):
        yield Alarm(
            "schema", len(changes), 0,
            f"{len(changes)} columns of {found.day} are not as on {before[-1].day}, and 0 should change ({', '.join(changes)}):"
            " the config reads none of them, but ask what writes the log",
        )  # fmt: skip
    for moved in stability(found, before):
        if rules.alarm_drift is not None and moved.shown > rules.alarm_drift:
            yield Alarm(
                f"drift: {moved.column}", moved.psi, rules.alarm_drift,
                f"{moved.column} moved by a population stability index of {moved.psi:.2f} from the {len(before)} days before "
                f"to {found.day}, more than daily.alarm_drift {rules.alarm_drift:g} and than chance ({moved.chance:.2f}): "
                "compare the days, and train from scratch with `recsys daily --full` if the change stays",
            )  # fmt: skip


def drift(found: Arrived, before: Sequence[Arrived]) -> dict[str, float]:
    """Column -> population stability index, 0 where it is no more than chance."""
    return {moved.column: moved.shown for moved in stability(found, before)}


def _schema_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    names = sorted({*before, *after})
    said = {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
    return [
        f"{name} is new" if old is None else f"{name} is gone" if new is None else f"{name} is {new} and was {old}"
        for name, (old, new) in said.items()
    ]


def _metric_alarms(config: "RunConfig", state: DayState, earlier: Sequence[DayState]) -> Iterator[Alarm]:
    """The main metric and each task's AUC, of which what it is above 0.5 counts."""
    limit = config.daily.alarm_metric
    main = config.promotion.main_metric(config.evaluation.ks[0])
    for name, value in state.detail("evaluate").get("metrics", {}).items() if limit is not None else ():
        if name != main and not name.startswith("AUC/"):
            continue
        chance = 0.5 if name.startswith("AUC/") else 0.0
        known = [each.detail("evaluate").get("metrics", {}).get(name) for each in earlier]
        usual = median(each for each in known if each is not None)
        if usual is not None and usual > chance and (drop := (usual - value) / (usual - chance)) > limit:
            above = " of what it is above 0.5" if chance else ""
            yield Alarm(
                f"metric: {name}", drop, limit,
                f"{name} is {value:.4f} on {state.day} and was {usual:.4f} on the days before: a drop of {drop:.0%}{above}, "
                f"more than daily.alarm_metric {limit:.0%}: look at the day's data and losses, and take the champion back with "
                "`recsys rollback` if it was promoted",
            )  # fmt: skip


def _champion_alarms(states: States, day: str, limit: int | None) -> Iterator[Alarm]:
    number, born = champion(states, day)
    if born is None or limit is None:
        return
    age = (date.fromisoformat(day) - date.fromisoformat(born)).days
    if age > limit:
        yield Alarm(
            "stale champion", age, limit,
            f"The champion, version {number}, was trained on {born}, {age} days before {day}, more than daily.alarm_stale_days "
            f"{limit}: see in report.md of the days since why none was promoted",
        )  # fmt: skip


def champion(states: States, day: str) -> tuple[int | None, str | None]:
    """The champion's version when `day` was last looked at, and the day that trained it; None where nothing says so."""
    for name in sorted((each for each in states if each <= day), reverse=True):
        number = states[name].champion.get("after")
        if number is not None:
            trained = (each for each in sorted(states) if states[each].detail("export").get("version") == number)
            return number, next(trained, None)
    return None, None
