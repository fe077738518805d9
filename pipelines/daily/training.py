"""Whether a day trains from scratch or goes on, and from where."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from rich.console import Console

from pipelines import stages
from pipelines.daily.dataset import APPENDED
from pipelines.daily.layout import Layout
from pipelines.daily.processes import train_with_processes
from pipelines.daily.state import DayState
from pipelines.workspace import Workspace, parts
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.errors import InputError


def decide(
    config: RunConfig, layout: Layout, day: date, state: DayState, *, full: bool, drift: Mapping[str, float]
) -> None:  # fmt: skip
    """Write the mode, the reason and the day to begin from into the state. `drift`: by column, how far the day's rows moved."""
    rules, most = config.continual, max(drift, key=lambda name: drift[name], default="")
    earlier = {each: DayState.load(layout.state(each)) for each in layout.days() if each < day}
    trained = [each for each, found in earlier.items() if found.is_done("train")]
    broken: dict[date, str] = {}
    for each in reversed(trained):
        if not (problem := not_whole(config, layout.workspace(each))):
            break
        broken[each] = problem
    start = next((each for each in reversed(trained) if each not in broken), None)
    scratch = [each for each in trained if earlier[each].mode in ("first", "full")]
    state.mode, state.start = "full", None
    if not trained:
        state.mode, state.why = "first", "no day was trained before"
    elif full:
        state.why = "asked for"
    elif start is None:
        state.why = f"no earlier day has its checkpoints and dataset any more: {broken[trained[-1]]}"
    elif built := _not_appended(earlier | {day: state}, start):
        state.why = f"the dataset was {built}"
    elif reason := _cannot_go_on(config):
        state.why = reason
    elif rules.full_every_days and (not scratch or (day - scratch[-1]).days >= rules.full_every_days):
        since = f"the last training from scratch was on {scratch[-1]}" if scratch else "no day that is known was from scratch"
        state.why = f"{since}, and continual.full_every_days is {rules.full_every_days}"
    elif rules.full_on_drift is not None and drift.get(most, 0) > rules.full_on_drift:
        state.why = f"{most} moved by a PSI of {drift[most]:.2f}, and continual.full_on_drift is {rules.full_on_drift}"
    else:
        passed_over = f": {broken[trained[-1]]}" if broken else ""
        state.mode, state.why, state.start = "warm", f"goes on from {start}{passed_over}", start.isoformat()


def moved(layout: Layout, day: date, state: DayState) -> dict[str, float]:
    """Column -> population stability index of the day's rows beside those of the days before, 0 where chance explains it.

    The days before begin with the newest that was trained from scratch: what had moved by then, that model has learned."""
    from pipelines.monitor.alarms import drift
    from pipelines.monitor.arrived import Arrived, days_before, flattened

    found = Arrived.of(state.detail("arrive"))
    states = {each.isoformat(): DayState.load(layout.state(each)) for each in layout.days() if each < day}
    past = {name: each.detail("arrive") for name, each in states.items() if each.is_done("arrive")}
    past[day.isoformat()] = state.detail("arrive")  # it has the days that were read beside it
    since = max((name for name, each in states.items() if each.mode == "full" and each.is_done("train")), default="")
    known = {name: each for name, each in flattened(past).items() if name >= since}
    return {} if found is None else drift(found, days_before(day.isoformat(), known))


def train_day(
    config: RunConfig, layout: Layout, day: date, state: DayState, *, uri: str | None, console: Console | None
) -> dict[str, Any]:
    """Train what the mode says; returns what the day keeps of it."""
    start = None if state.start is None else layout.workspace(date.fromisoformat(state.start))
    if config.daily.processes > 1:
        manifests = train_with_processes(config, layout.workspace(day), start, uri=uri)
    else:
        manifests = stages.train(
            config, layout.workspace(day), only=None, console=console, uri=uri, start=start, continual=start is not None
        )
    return {
        part: {name: manifest[name] for name in ("main_metric", "best", "epochs", "steps", "seconds")}
        for part, manifest in manifests.items()
    }


def not_whole(config: RunConfig, workspace: Workspace, *, dataset_too: bool = True) -> str:
    """Which artefact that a warm training begins from is gone or damaged; empty where all are as they were written."""
    folders = {
        **({workspace.dataset: "dataset"} if dataset_too else {}),
        **{workspace.checkpoint(part): "checkpoint" for part in parts(config)},
    }
    if config.generator is not None:
        folders[workspace.semantic_ids] = "semantic_ids"
    try:
        for folder, kind in folders.items():
            read_manifest(folder, kind, verify=True)
    except InputError as error:
        return str(error).partition(": ")[0]
    return ""


def _not_appended(states: Mapping[date, DayState], start: date) -> str:
    """How a dataset since that of `start` was built where it was not appended to the one before; empty where all were."""
    since = [states[day].detail("prepare").get("built", "") for day in sorted(states) if day > start]
    return next((built for built in since if built and not built.startswith(APPENDED)), "")


def _cannot_go_on(config: RunConfig) -> str:
    ids = config.generator.ids if config.generator is not None else None
    if ids is not None and ids.reads_retriever:
        return "generator.ids reads the retriever, so that a trained retriever gives items other ids"
    return ""
