"""The steps of a day. Each is a no-op where its work lies there already, and returns what day.json keeps of it."""

import json
import time
from datetime import date
from pathlib import Path
from typing import Any

from pipelines import stages
from pipelines.daily.dataset import day_before, prepare_day
from pipelines.daily.registered import is_run_of, send_again_if_damaged
from pipelines.daily.state import DayState
from pipelines.daily.today import Step, Today
from pipelines.daily.training import decide, moved, not_whole, train_day
from pipelines.promotion.facts import CANDIDATE, CHAMPION, PREVIOUS
from pipelines.promotion.promote import promote as judge_and_settle
from pipelines.promotion.record import to_json
from pipelines.workspace import open_dataset, parts
from recsys import track
from recsys.artefact import is_there, read_manifest
from recsys.errors import InputError

LOOK_EVERY_S = 0.1


def arrive(today: Today) -> dict[str, Any]:
    """Look at the day's raw partition. Raises InputError where nothing may be trained on it."""
    from pipelines.monitor.arrival import check_arrival

    others = {day.isoformat(): DayState.load(today.layout.state(day)) for day in today.layout.days() if day != today.day}
    known = {day: state.detail("arrive") for day, state in others.items() if state.is_done("arrive")}
    return check_arrival(today.config, today.raw, today.day, known).to_json()


def prepare(today: Today) -> dict[str, Any]:
    return prepare_day(today.config, today.raw, today.layout, today.day, today.console)


def train(today: Today) -> dict[str, Any]:
    if today.state.mode is None or not _can_begin(today):
        day_before(today.config, today.raw, today.layout, today.day)  # its dataset, which replay reads, is made whole
        drift = moved(today.layout, today.day, today.state)
        decide(today.config, today.layout, today.day, today.state, full=today.full, drift=drift)
        today.save()  # a run that goes on after a kill does not decide again
    return train_day(today.config, today.layout, today.day, today.state, uri=today.uri, console=today.console)


def evaluate(today: Today) -> dict[str, Any]:
    """The candidate, then the champion on the same data."""
    from pipelines.daily.champion import judge_champion
    from pipelines.evaluate import HeldOut

    held_out = HeldOut.of(today.config, open_dataset(today.workspace, today.config))
    result = stages.evaluate(today.config, today.workspace, uri=today.uri, held_out=held_out)
    champion = judge_champion(
        today.config, today.layout, today.workspace, today.layout.champion(today.day), step=today.day.toordinal(),
        uri=today.uri, held_out=held_out,
    )  # fmt: skip
    ranking = result.get("ranking", {}).get("tasks", {})
    auc = {f"AUC/{task}": means["AUC"] for task, means in ranking.items() if "AUC" in means}
    return {
        "users": result["retrieval"]["users"], "metrics": {**result["retrieval"]["model"], **auc},
        "floors": dict(result["retrieval"]["floor"]), "champion": champion,
    }  # fmt: skip


def export(today: Today) -> dict[str, Any]:
    """The bundle, registered as the candidate. One that is registered already is not registered again."""
    workspace = today.workspace
    version = _registered(today)
    if version is None:
        manifest = stages.export(today.config, workspace, uri=today.uri)
        version = manifest.get("version")
    else:
        manifest = read_manifest(workspace.bundle, "bundle")
    return {"bundle": manifest["fingerprint"], "version": version, "parity_max_error": manifest["parity_max_error"]}


def promote(today: Today) -> dict[str, Any]:
    """The gates decide. A refusal is no failure: the champion stays."""
    config, state = today.config, today.state
    before = track.get_alias(config.name, CHAMPION, uri=today.uri)
    state.champion = dict.fromkeys(("before", "after"), before.number if before else None)
    if newer := today.newer_day:
        state.decision = {"outcome": "skipped", "says": f"{newer} is newer and done, so that this day cannot be the champion"}
        return {"outcome": "skipped"}
    number = _candidate(today)
    send_again_if_damaged(today.workspace, track.get_version(config.name, number, uri=today.uri), uri=today.uri)
    classes = [task for task in config.tasks if task not in config.regression]
    decision = judge_and_settle(
        config.name, config.promotion, first_k=config.evaluation.ks[0], tasks=classes, uri=today.uri
    )  # fmt: skip
    is_champion = number == decision.champion or decision.outcome == "already"  # a run that was killed just after it, say
    if is_champion:
        previous = track.get_alias(config.name, PREVIOUS, uri=today.uri)
        state.champion["before"] = previous.number if previous else None
    state.champion["after"] = number if is_champion or decision.outcome == "promoted" else decision.champion
    state.decision = (is_champion and _earlier(config.name, number, today.uri)) or to_json(decision)
    return {name: state.decision[name] for name in ("outcome", "says")} | {"version": number}


def _earlier(model: str, number: int, uri: str | None) -> dict[str, Any] | None:
    """The decision that made a version the champion, where it is judged again beside itself: after a kill, or since an artefact
    was damaged. None where it was made champion by hand."""
    found: dict[str, Any] = json.loads(track.get_version(model, number, uri=uri).tags.get("promotion/json", "{}"))
    if found.get("outcome") not in ("passed", "promoted"):
        return None
    return {**found, "outcome": "promoted", "says": f"Promoted: version {number} is the champion."}


def reload(today: Today) -> dict[str, Any]:
    """Wait until the endpoint serves the new champion. Raises InputError where it does not in time."""
    if today.endpoint is None:
        return {"endpoint": None, "why_not": "no --endpoint is named"}
    if today.state.detail("promote")["outcome"] not in ("promoted", "already"):
        return {"endpoint": today.endpoint, "why_not": "the champion stays"}
    from pipelines.monitor.alarms import champion
    from serving.client import Client

    states = {day.isoformat(): DayState.load(today.layout.state(day)) for day in today.layout.days()}
    number, _ = champion(states, max(states))
    if number != today.state.champion["after"]:  # of a later day: the endpoint will never serve this one's
        return {"endpoint": today.endpoint, "why_not": f"version {number} is the champion by now"}

    wanted = today.state.detail("export")["bundle"]
    client, began, within_s = Client(today.endpoint, retries=0), time.monotonic(), today.config.daily.reload_seconds
    said = ""
    while time.monotonic() - began < within_s:
        try:
            info = client.info()
            said = info.version if info.refused is None else f"{info.version}; {info.refused['reason']}"
            if info.version == wanted:  # it answers, while the deployment says what is to answer
                return {"endpoint": today.endpoint, "version": wanted, "waited_s": round(time.monotonic() - began, 1)}
        except InputError as error:  # it may be starting
            said = str(error)
        time.sleep(LOOK_EVERY_S)
    raise InputError(
        f"{today.endpoint} does not serve {wanted} after {within_s:.0f} s ({said}): start it with `recsys serve "
        f"--model {today.config.name} --alias {CHAMPION}`, so that it follows the champion, and run the day again"
    )


def report(today: Today) -> dict[str, Any]:
    """The alarms, the report's files, and whom they are sent to; of a day that stopped, too."""
    from pipelines.daily.report import write_report
    from pipelines.monitor.alarms import day_alarms

    today.state.alarms = [alarm.to_json() for alarm in day_alarms(today.config, today.layout, today.state)]
    return write_report(today)


def _can_begin(today: Today) -> bool:
    """Whether the day that was decided to begin from is still whole; it may have been damaged since."""
    start = today.state.start
    return start is None or not not_whole(today.config, today.layout.workspace(date.fromisoformat(start)))


def outputs(today: Today, step: str) -> list[tuple[Path, str]]:
    """Folder and kind of the artefacts that a step leaves."""
    workspace = today.workspace
    checkpoints = [(workspace.checkpoint(part), "checkpoint") for part in parts(today.config)]
    if today.config.generator is not None:
        checkpoints.append((workspace.semantic_ids, "semantic_ids"))
    return {
        "prepare": [(workspace.dataset, "dataset")], "train": checkpoints, "evaluate": [(workspace.metrics, "metrics")],
        "export": [(workspace.bundle, "bundle")],
    }.get(step, [])  # fmt: skip


def _registered(today: Today) -> int | None:
    """The number of the candidate where it is this very bundle."""
    if not is_there(today.workspace.bundle):
        return None
    try:
        bundle = read_manifest(today.workspace.bundle, "bundle", verify=True)
    except InputError:
        return None
    checkpoints = {
        part: read_manifest(today.workspace.checkpoint(part), "checkpoint")["fingerprint"] for part in parts(today.config)
    }
    if any(bundle["lineage"]["checkpoints"].get(part) != mark for part, mark in checkpoints.items()):
        return None
    found = track.get_alias(today.config.name, CANDIDATE, uri=today.uri)
    if found is None or found.folder != f"bundle-{bundle['fingerprint']}":
        return None
    return found.number if is_run_of(today.workspace, found.run_id, today.uri) else None  # not of a training before this one


def _candidate(today: Today) -> int:
    """The version of this day, to which the alias is set where another one was exported since."""
    bundle = today.state.detail("export")["bundle"]
    found = track.get_alias(today.config.name, CANDIDATE, uri=today.uri)
    if found is not None and found.folder == f"bundle-{bundle}":
        return found.number
    number = today.state.detail("export")["version"]
    if number is None:  # the store was away when it was exported
        track.sync(today.uri)
        found = track.get_alias(today.config.name, CANDIDATE, uri=today.uri)
        if found is None or found.folder != f"bundle-{bundle}":
            raise InputError(f"{today.workspace.bundle} is not registered: run `recsys sync`, and the day again")
        return found.number
    track.set_alias(today.config.name, CANDIDATE, number, uri=today.uri)
    return int(number)


ACTIONS: dict[str, Step] = {
    "arrive": arrive, "prepare": prepare, "train": train, "evaluate": evaluate, "export": export, "promote": promote,
    "reload": reload, "report": report,
}  # fmt: skip
