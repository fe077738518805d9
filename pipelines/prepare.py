"""Raw logs -> dataset, and a report on its quality."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from pipelines.data_report import PAGE_FILE, QUALITY_FILE, refresh
from pipelines.workspace import Workspace
from recsys.artefact import is_there, read_manifest
from recsys.data import Data
from recsys.data.build import build
from recsys.data.engines import Engine, Progress
from recsys.data.leaks import sentences
from recsys.errors import InputError


@dataclass(frozen=True)
class Prepared:
    """`report` is that of `pipelines.data_report`. Where `is_new` is false, there was nothing to add to the dataset."""

    manifest: dict[str, Any]
    report: dict[str, Any]
    is_new: bool

    def to_json(self, workspace: Workspace) -> dict[str, Any]:
        return {
            "dataset": str(workspace.dataset),
            "data_fingerprint": self.manifest["data_fingerprint"],
            "is_new": self.is_new,
            **self.manifest["report"],
            "drift": self.report["drift"],
            "leaks": sentences(self.report["leaks"]),
            "quality": str(workspace.data_report / QUALITY_FILE),
            "page": str(workspace.data_report / PAGE_FILE),
        }


def prepare_run(
    data: Data, raw: Path, workspace: Workspace, *, engine: Engine, progress: Progress | None = None, anew: bool = False,
    until: date | None = None, without: Collection[str] = (),
) -> Prepared:  # fmt: skip
    """Write the dataset of the workspace, or append to it, and its report. Raises InputError.

    With `until`, as it was when this day (UTC) ended, whatever the clock says now. Rows of the users `without` are passed over.
    """
    before = None if anew else _made(workspace.dataset)
    manifest = build(
        data, raw, workspace.dataset, engine=engine, progress=progress, anew=anew, until=until,
        now_ms=None if until is None else ended_ms(until), without=without,
    )  # fmt: skip
    is_new = _made(workspace.dataset) != before
    return Prepared(manifest, refresh(workspace, manifest, is_new=is_new, progress=progress), is_new)


def ended_ms(day: date) -> int:
    """When a day (UTC) ended."""
    return round(datetime.combine(day + timedelta(1), time(), UTC).timestamp() * 1000)


def _made(dataset: Path) -> tuple[str, str] | None:
    """What tells one build from another; None where there is no dataset that this code reads."""
    if not is_there(dataset):
        return None
    try:
        manifest = read_manifest(dataset, "dataset")
    except InputError:
        return None
    return manifest["created"], manifest["fingerprint"]
