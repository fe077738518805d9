"""The dataset of a day: that of the day before, to which the ordinary append adds what came since."""

import logging
import os
import shutil
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.prepare import ended_ms, prepare_run
from pipelines.workspace import Workspace
from recsys.artefact import is_there, move_into_place, read_manifest
from recsys.config import RunConfig
from recsys.data.build import build
from recsys.data.days import day_of
from recsys.data.engines import engine
from recsys.errors import InputError

AGAIN = ".again.tmp"  # below a day: its dataset while it is made once more
OF_THE_CALENDAR = ("events per hour of day", "events per weekday")  # these move as a log begins to fill its first weeks
APPENDED = "appended"  # how the report of a dataset begins that is not built from scratch
log = logging.getLogger("recsys.daily")


def fingerprints(config: RunConfig, raw: Path, day: date) -> dict[str, str]:
    """Arrival unit -> a hash of its files, of the units of this day; empty where none came. Raises InputError without a log."""
    from recsys.artefact import fingerprint

    events = config.data.events
    if events.arrives == "together":
        raise InputError("data.events.arrives is together, and days arrive one by one: set it to by_folder or by_file")
    pieces = [piece for piece in events.list_pieces(raw) if day_of(piece.unit) == day]
    units: dict[str, dict[str, str]] = {}
    for piece in pieces:
        units.setdefault(piece.unit, {})[piece.name] = piece.fingerprint()
    return {unit: fingerprint(files) for unit, files in units.items()}


def newest_day(config: RunConfig, raw: Path) -> date:
    """The last day of the log. Raises InputError where its names have no dates."""
    return max(day_of(piece.unit) for piece in config.data.events.list_pieces(raw))


def prepare_day(config: RunConfig, raw: Path, layout: Layout, day: date, console: Console | None) -> dict[str, Any]:
    """Write the day's dataset and its report; returns what the day keeps of it. Raises InputError."""
    from pipelines.origin import remember_raw
    from pipelines.progress import BuildProgress

    workspace = layout.workspace(day)
    for left in layout.root.glob(f"days/*/{AGAIN}"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    begin_from = day_before(config, raw, layout, day)
    if is_there(workspace.dataset) and _damage(workspace):  # of a run that was killed after it had linked it, say
        shutil.rmtree(workspace.dataset)
    if not is_there(workspace.dataset) and begin_from is not None:
        link_dataset(begin_from, workspace)
    with BuildProgress(console) as progress:
        found = prepare_run(
            config.data, raw, workspace, engine=engine(), progress=progress, until=day, without=layout.forgotten_users()
        )
    remember_raw(workspace, raw)
    report = found.manifest["report"]
    rows = [row for row in found.report["drift"] or [] if row["measure"] == "PSI" and row["value"] is not None]
    drift = [row for row in rows if row["name"] not in OF_THE_CALENDAR]
    return {
        "built": report["built"], "data_fingerprint": found.manifest["data_fingerprint"],
        "before": None if begin_from is None else begin_from.root.name,
        **{name: report[name] for name in ("rows_read", "rows_kept", "timeline_events", "examples", "users", "items")},
        "drift": {row["name"]: round(row["value"], 4) for row in drift},
    }  # fmt: skip


def day_before(config: RunConfig, raw: Path, layout: Layout, day: date) -> Workspace | None:
    """The newest earlier day whose dataset is there; one that is damaged is made again before."""
    for earlier in reversed([each for each in layout.days() if each < day]):
        workspace = layout.workspace(earlier)
        if DayState.load(layout.state(earlier)).is_done("prepare") and is_there(workspace.dataset):
            if problem := _damage(workspace):
                log.warning("%s: its dataset is made again: %s", earlier, problem)
                if not _made_again(config, raw, layout, earlier):  # this day's is built from scratch then, and says so
                    return None
            return workspace
    return None


def _damage(workspace: Workspace) -> str:
    """What of its dataset is not as it was written; empty where all is."""
    try:
        read_manifest(workspace.dataset, "dataset", verify=True)
    except InputError as error:
        return str(error)
    return ""


def _made_again(config: RunConfig, raw: Path, layout: Layout, day: date) -> bool:
    """Build the dataset of a day as it was built then, aside, and put it in the place of the damaged one if it is the same.

    Days share files, so that the days before may be damaged, too: they are made again first. False where the dataset comes out
    as another one, since raw files were changed or removed or users were forgotten since, or cannot be built any more.
    """
    workspace, aside = layout.workspace(day), Workspace(layout.folder(day) / AGAIN)
    shutil.rmtree(aside.root, ignore_errors=True)
    try:
        wanted = read_manifest(workspace.dataset, "dataset")["fingerprint"]
        begin_from = day_before(config, raw, layout, day)
        if begin_from is not None:
            link_dataset(begin_from, aside)
        found = build(
            config.data, raw, aside.dataset, engine=engine(), until=day, now_ms=ended_ms(day), without=layout.forgotten_users()
        )
        if found["fingerprint"] != wanted:
            log.warning("%s: its dataset comes out as another one now", day)
            return False
        move_into_place(aside.dataset, workspace.dataset)
    except InputError as error:
        log.warning("%s: its dataset cannot be made again: %s", day, error)
        return False
    finally:
        shutil.rmtree(aside.root, ignore_errors=True)
    return True


def link_dataset(begin_from: Workspace, workspace: Workspace) -> None:
    """The same dataset, and its report, under a second name: what is kept costs no room. Files of an artefact are never
    written again, so that neither day can change the other's."""
    for source, target in (
        (begin_from.data_report, workspace.data_report), (begin_from.dataset, workspace.dataset)
    ):  # fmt: skip
        if not source.is_dir():
            continue
        copy = shutil.copy2 if source == begin_from.data_report else _link
        scratch = target.with_name(f".{target.name}.tmp")  # one name, so that the next run clears what a killed one left
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, scratch, copy_function=copy)
        scratch.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
