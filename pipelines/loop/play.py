"""One policy through all days: the endpoint serves, what users do becomes the day's raw partition, the daily run learns.

FOLDER/raw                  the log as it grows
FOLDER/daily                the workspace of the daily runs
FOLDER/live                 the server's folder: state and journal
FOLDER/mlflow.db            models of this policy alone, so that each policy has its own champion
FOLDER/pages/DAY-N.ndjson   every page that was served
FOLDER/days/DAY.json, .npz  what the day was like; written last, so that a killed loop goes on with the day it was in
"""

import json
import time
from dataclasses import asdict
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipelines.daily.run import run_day
from pipelines.daily.state import replace_text
from pipelines.loop.measures import DayValues, head, measure
from pipelines.loop.pages import serve
from pipelines.loop.plan import Policy
from pipelines.loop.raw import write_day, write_warm_up
from pipelines.loop.server import Endpoint, endpoint
from recsys.errors import InputError
from recsys.simulate import Simulation
from recsys.simulate.behaviour import Flags
from recsys.simulate.days import visited
from recsys.simulate.files import Files
from recsys.simulate.log import choose
from recsys.simulate.loop import Audience, audiences
from recsys.simulate.world import Ints, make_world

PLAYED_FILE = "played.json"  # what the folder was played with


def play(policy: Policy, spec: Simulation, folder: Path, *, console: Console | None = None) -> list[dict[str, Any]]:
    """The numbers of every day, in order. Days that were played before are read. Raises InputError."""
    _check_same(policy, spec, folder)
    files, raw, uri = Files(spec, make_world(spec)), folder / "raw", f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    write_warm_up(spec, files, raw, days=policy.loop.warm_up, marker=policy.config.daily.marker)
    dates = [files.date(policy.loop.warm_up + day) for day in range(policy.loop.days)]
    if all((folder / "days" / f"{day}.json").exists() for day in dates):
        return [_read(folder, day) for day in dates]
    first = run_day(policy.config, raw, folder / "daily", files.date(policy.loop.warm_up - 1), uri=uri, console=console)
    if first.champion["after"] is None:
        says = (first.decision or {}).get("says", "the gates refused it")
        raise InputError(
            f"{policy.name}: the model of the warm-up is no champion, {says}: mend `promotion`, or take more --events"
        )
    head_I = head(_shown_before(spec, files, policy.loop.warm_up))
    with endpoint(policy.config.name, folder / "live", uri=uri) as server:
        coming = audiences(spec, files.world, first_day=policy.loop.warm_up)
        for number, parts in groupby(coming, key=lambda part: part.visits.day):
            day = files.date(number)
            if not (folder / "days" / f"{day}.json").exists():
                found = _play_day(policy, files, list(parts), folder, server, head_I, uri)
                if console is not None:
                    console.print(f"{policy.name} {day}: {_says(found)}", highlight=False)
    return [_read(folder, day) for day in dates]


def _play_day(
    policy: Policy, files: Files, parts: list[Audience], folder: Path, server: Endpoint, head_I: Flags, uri: str
) -> dict[str, Any]:  # fmt: skip
    """Serve the day, learn from it where it is time to, and write its numbers."""
    day, number = files.date(parts[0].visits.day), parts[0].visits.day - policy.loop.warm_up
    server.take_champion()  # a killed loop may have promoted one
    context, raw, pages = policy.config.data.events.context, folder / "raw", folder / "pages"
    served = [
        (
            part,
            serve(
                server.client, files, part, pages / f"{day}-{part.visits.chunk}.ndjson", context=context, ask=policy.loop.ask
            ),
        )
        for part in parts
    ]
    began = time.monotonic()
    if not (raw / files.part(parts[0].visits)).parent.exists():
        rows = [(part.visits, part.log(pages.item_RS, pages.propensity_RS)) for part, pages in served]
        write_day(files, raw, rows, marker=policy.config.daily.marker)
    learnt: dict[str, Any] = {"trained": False}
    if policy.loop.train_every and (number + 1) % policy.loop.train_every == 0:
        learnt = _learn(policy, raw, folder / "daily", day, uri)
        server.take_champion()
        learnt["data_to_live_s"] = round(time.monotonic() - began, 2) if learnt["promoted"] else None
    numbers, values = measure(served, head_I)
    found = {"day": day.isoformat(), **numbers, **learnt}
    (folder / "days").mkdir(exist_ok=True)
    np.savez(folder / "days" / f"{day}.npz", **asdict(values))
    replace_text(folder / "days" / f"{day}.json", json.dumps(found) + "\n")
    return found


def _learn(policy: Policy, raw: Path, root: Path, day: date, uri: str) -> dict[str, Any]:
    """What the daily run did. A day that it stops at leaves the champion, and the loop goes on."""
    try:
        state = run_day(policy.config, raw, root, day, uri=uri)
    except InputError as error:
        return {"trained": False, "promoted": False, "stopped": str(error)}
    return {
        "trained": True, "mode": state.mode, "why": state.why,
        "promoted": state.champion["before"] != state.champion["after"],
        "decision": (state.decision or {}).get("outcome"), "metrics": state.detail("evaluate")["metrics"],
        "seconds": {step: done.seconds for step, done in state.steps.items()},
        "alarms": [each["name"] for each in state.alarms],
    }  # fmt: skip


def _shown_before(spec: Simulation, files: Files, days: int) -> Ints:
    """count_I: how often each item was shown in the days of the warm-up."""
    count_I = np.zeros(spec.items, np.int64)
    for each in visited(spec, files.world):
        if each.day >= days:
            break
        item_RS, _ = choose(spec, each.world, each.taste_UD[each.user_R], each.focus_R, each.rng)
        count_I += np.bincount(item_RS.ravel(), minlength=spec.items)
    return count_I


def values(folder: Path, days: list[str]) -> list[DayValues]:
    """What each page of the days was worth."""
    return [DayValues(**np.load(folder / "days" / f"{day}.npz")) for day in days]


def _check_same(policy: Policy, spec: Simulation, folder: Path) -> None:
    """Refuse a folder that was played with other settings."""
    now = {
        "world": spec.model_dump(mode="json"), "config": policy.config.model_dump(mode="json"),
        "loop": policy.loop.model_dump(mode="json"),
    }  # fmt: skip
    path = folder / PLAYED_FILE
    if path.exists():
        if other := [key for key, value in json.loads(path.read_text()).items() if value != now[key]]:
            raise InputError(f"{folder} was played with another {other[0]}: remove it, or name another --workspace")
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(now) + "\n")


def _read(folder: Path, day: date) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "days" / f"{day}.json").read_text())
    return found


def _says(found: dict[str, Any]) -> str:
    live = found.get("data_to_live_s")
    took = f", live {live:.0f} s after its data" if live is not None else ""
    stopped = f", {found['stopped']}" if "stopped" in found else ""
    return (
        f"{found['click_rate']:.1%} clicked, regret {found['regret']:.1%} (logging policy {found['logging_regret']:.1%})"
        f"{took}{stopped}"
    )  # fmt: skip
