"""Forget users: server, raw files, dataset, model, and what still has them. Each step is done once; a killed run goes on."""

import hashlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.daily.layout import DAY, Layout
from pipelines.forget import days
from pipelines.forget import live as server
from pipelines.forget import raw as raw_files
from pipelines.forget.plan import PLAN_FOLDER, Method, Plan, remember
from pipelines.forget.receipt import Receipt
from pipelines.workspace import Workspace, open_dataset, parts
from recsys.artefact import is_there
from recsys.config import RunConfig
from recsys.errors import InputError

PARTS = ("semantic_ids", "retriever", "generator", "policy", "ranker")
DERIVED = ("metrics", "bundle", "data_report", "profile")  # made from dataset and checkpoints


@dataclass(frozen=True)
class Request:
    """What `forget` is asked. `root` is a run's workspace, or that of a daily run, whose newest trained day is then changed."""

    config: RunConfig
    raw: Path
    root: Path
    users: Collection[str]
    method: Method = "retrain"
    live: Path | None = None
    url: str | None = None
    api_key: str | None = None
    purge: bool = False  # delete the other days' folders that have the users
    uri: str | None = None  # of MLflow


def forget(asked: Request, console: Console | None = None) -> Receipt:
    """Do all of it and return the receipt, which also lies in `root`/forgotten. Raises InputError, and at the first step of
    all where something is wrong with the request."""
    from pipelines.daily.lock import held

    with held(asked.root / "lock", "recsys forget"):
        return _forget(asked, console)


def _forget(asked: Request, console: Console | None) -> Receipt:
    plan, layout = Plan(asked.root, asked.users, asked.method), Layout(asked.root)
    name = plan.steps.get("day", "") or newest_trained(asked.root)  # a run killed in the swap has left a day without dataset
    day = date.fromisoformat(name) if name else None
    workspace = Workspace(asked.root) if day is None else layout.workspace(day)
    new = Workspace(plan.folder / "new")
    if "begin" not in plan.steps:
        _check(asked, workspace)
        plan.step("day", lambda: name)
    plan.step("begin", lambda: {name: is_there(getattr(workspace, name)) for name in ("metrics", "bundle")})
    plan.step("stay", lambda: remember(layout, asked.users))
    plan.step("server", lambda: _server(asked, plan.began_ms))
    known = plan.step("known", lambda: days.as_recorded(asked.config, asked.raw, layout))
    plan.step("raw", lambda: raw_files.erase(asked.config.data, asked.raw, asked.users))
    plan.step("recognised", lambda: days.recognised(asked.config, asked.raw, layout, known))
    plan.step("dataset", lambda: _dataset(asked, layout, new, day))
    plan.step("model", lambda: _model(asked, workspace, new, console))
    plan.step("measured", lambda: _measured(asked, workspace, new))
    plan.step("swap", lambda: _swap(workspace, new))
    plan.step("stale", lambda: _stale(asked.config, workspace))
    plan.step("derived", lambda: _derived(asked, workspace, plan.steps["begin"]))
    if day is not None:
        plan.step("judged_anew", lambda: days.judged_anew(layout, day, workspace))
    anew = plan.step("prepared_anew", lambda: days.prepared_anew(layout, day))
    plan.step("days", lambda: _days([each for each in _others(asked.root, name) if each.name not in anew], asked.purge))
    plan.step("unknown", lambda: _unknown(workspace, asked.raw))
    receipt = Receipt.of(plan, workspace, [hashlib.sha256(user.encode()).hexdigest() for user in sorted(set(asked.users))])
    receipt.write(asked.root / "forgotten")
    shutil.rmtree(plan.folder)
    return receipt


def newest_trained(root: Path) -> str:
    """The day whose model is to be changed; empty for a workspace that is no daily run's. Raises InputError."""
    folders = _others(root, "")
    trained = [folder.name for folder in folders if is_there(folder / "dataset") and is_there(folder / "retriever")]
    if folders and not trained:
        raise InputError(f"{root / 'days'} has no day that was trained: run `recsys daily` first")
    found = [name for name in trained if DAY.fullmatch(name)]
    return found[-1] if found else ""


def _others(root: Path, day: str) -> list[Path]:
    """The folders of the other days, and of those that were set aside."""
    return sorted(folder for folder in (root / "days").glob("[0-9]*") if folder.is_dir() and folder.name != day)


def _check(asked: Request, workspace: Workspace) -> None:
    from pipelines.forget.model import require_method

    if not asked.users:
        raise InputError("no user to forget is named: give their ids as the log has them")
    data = open_dataset(workspace, asked.config)
    known = set(asked.users) & set(data.user_ids)
    if not known and not (asked.live or asked.url) and not raw_files.has_rows(asked.config.data, asked.raw, asked.users):
        raise InputError(
            f"none of the {len(set(asked.users))} users is in {data.folder} or {asked.raw}: give their ids as the log has them"
        )
    require_method(asked.config, data, asked.method, list(asked.users))


def _server(asked: Request, began_ms: int) -> dict[str, int | None]:
    """Events deleted from the state, and lines blanked in the journal; None where no server was named."""
    deleted = blanked = None
    if asked.url is not None:
        deleted = server.forget_at(asked.url, asked.users, api_key=asked.api_key)
    elif asked.live is not None:
        deleted = server.forget_in(asked.live, asked.users, since_ms=began_ms)
    if asked.live is not None:
        blanked = server.blank(asked.live, asked.users)
    return {"events_deleted": deleted, "journal_lines": blanked}


def _dataset(asked: Request, layout: Layout, new: Workspace, day: date | None) -> dict[str, Any]:
    """Built from scratch: the users have neither id nor row, nor has who was forgotten before and came again, and the others'
    ids have other numbers."""
    from recsys.data.build import build

    manifest = build(asked.config.data, asked.raw, new.dataset, until=day, without=layout.forgotten_users())
    report = manifest["report"]
    return {name: report[name] for name in ("users", "items", "timeline_events", "examples")}


def _model(asked: Request, workspace: Workspace, new: Workspace, console: Console | None) -> dict[str, Any]:
    from pipelines import stages
    from pipelines.forget.model import approximate
    from recsys.train.distributed import process_group

    if asked.method == "retrain":
        manifests = stages.train(asked.config, new, only=None, console=console, uri=asked.uri)
        return {part: {"epochs": manifest["epochs"], "seconds": manifest["seconds"]} for part, manifest in manifests.items()}
    with process_group():
        return approximate(asked.config, workspace, new, list(asked.users), asked.method)


def _measured(asked: Request, workspace: Workspace, new: Workspace) -> dict[str, Any]:
    from pipelines.forget.model import measure
    from recsys.train.distributed import process_group

    with process_group():
        return measure(asked.config, workspace, new, list(asked.users), asked.method)


def _swap(workspace: Workspace, new: Workspace) -> list[str]:
    """The new artefacts take the place of those that know the users; what was deleted."""
    gone = []
    for name in ("dataset", *PARTS):
        old = workspace.root / name
        if is_there(new.root / name):
            shutil.rmtree(old, ignore_errors=True)
            (new.root / name).rename(old)
        for left in (old.with_name(f"{name}.resume"), old.with_name(f"{name}.failed")):
            if left.is_dir():
                shutil.rmtree(left)
                gone.append(left.name)
    if (new.root / "mlflow.json").is_file():
        (new.root / "mlflow.json").rename(workspace.root / "mlflow.json")
    for name in (*DERIVED, "champion"):
        if (workspace.root / name).is_dir():
            shutil.rmtree(workspace.root / name)
            gone.append(name)
    return gone


def _stale(config: RunConfig, workspace: Workspace) -> list[str]:
    """Delete what had the users and has no successor: parts that the config trains no more, scratch folders of killed runs."""
    made = {*parts(config), *(["semantic_ids"] if config.generator is not None else [])}
    old = [workspace.root / part for part in PARTS if part not in made]
    gone = [path for path in (*old, *sorted(workspace.root.glob(".*.tmp"))) if path.is_dir()]
    for path in gone:
        shutil.rmtree(path)
    return [path.name for path in gone]


def _unknown(workspace: Workspace, raw: Path) -> list[str]:
    """Further folders of the workspace, such as those of a sweep. What the receipt says of a server and of MLflow
    stands there anyway."""
    told = {"dataset", *PARTS, *DERIVED, PLAN_FOLDER, "forgotten", "days", "live", "mlruns", "artifacts", "spool"}
    folders = sorted(path for path in workspace.root.iterdir() if path.is_dir() and path.name not in told)
    return [str(path) for path in folders if not raw.resolve().is_relative_to(path.resolve())]


def _derived(asked: Request, workspace: Workspace, was_there: dict[str, bool]) -> list[str]:
    """Metrics and bundle are made again where the workspace had them."""
    from pipelines import stages
    from pipelines.data_report import refresh

    refresh(workspace, open_dataset(workspace, asked.config).manifest, is_new=True)
    made = ["data_report"]
    if was_there["metrics"]:
        stages.evaluate(asked.config, workspace, uri=asked.uri)
        made.append("metrics")
    if was_there["bundle"]:
        stages.export(asked.config, workspace, uri=asked.uri)
        made.append("bundle")
    return made


def _days(others: list[Path], purge: bool) -> dict[str, list[str]]:
    """Folders of other days, whose datasets and models had the users: deleted, or listed."""
    if purge:
        for folder in others:
            shutil.rmtree(folder, ignore_errors=True)
    names = [str(folder) for folder in others]
    return {"deleted": names if purge else [], "left": [] if purge else names}
