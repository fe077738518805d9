"""The quality report that lies beside a dataset: numbers as JSON, a page for people, what moved since the dataset before."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.data.engines import Progress

QUALITY_FILE = "quality.json"
PAGE_FILE = "report.html"
FORMAT_VERSION = 1


def describe(dataset: Path) -> dict[str, Any]:
    """The report of a dataset's folder, `recsys.data.leaks` included. Raises InputError."""
    from recsys.data.leaks import leaks
    from recsys.data.quality import quality

    manifest = read_manifest(dataset, "dataset")
    return {
        "format_version": FORMAT_VERSION,
        "dataset": _identity(manifest),
        **quality(dataset, manifest),
        "leaks": leaks(dataset),
    }


def page(report: Mapping[str, Any]) -> str:
    """The report as one HTML page."""
    from pipelines.quality_page import quality_page
    from recsys.data.leaks import sentences

    return quality_page(report, report.get("drift"), sentences(report["leaks"]))


def refresh(
    workspace: Workspace, manifest: Mapping[str, Any], *, is_new: bool = False, progress: Progress | None = None
) -> dict[str, Any]:
    """The report of the workspace's dataset, made where the dataset is new or the report that is there tells of another one.

    `drift` then says what moved between the two datasets; it is None where there was no report.
    """
    from recsys.data.drift import drift

    folder = workspace.data_report
    before = _read(folder / QUALITY_FILE)
    if before is not None and before["dataset"] == _identity(manifest) and not is_new:
        if not (folder / PAGE_FILE).is_file():
            _write(folder / PAGE_FILE, page(before))
        return before
    if progress:
        progress("quality report", 0, 1)
    report = describe(workspace.dataset)
    report["drift"] = None if before is None else drift(before, report)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / PAGE_FILE, page(report))
    _write(folder / QUALITY_FILE, json.dumps(report, indent=1, allow_nan=False) + "\n")  # last: it says that the page is there
    if progress:
        progress("quality report", 1, 1)
    return report


def _identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: manifest[name] for name in ("fingerprint", "data_fingerprint", "created")}


def _read(path: Path) -> dict[str, Any] | None:
    """A report of this format; None where there is none, so that it is made anew."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format_version") == FORMAT_VERSION else None


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text)
    scratch.rename(path)
