"""Artefacts: folders with a manifest, written aside and renamed, so that a reader finds all of one or none of it."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.errors import InputError

MANIFEST = "manifest.json"
HASHED_AT_ONCE = 4  # files; hashing lets go of the interpreter lock
FORMAT_VERSIONS = {
    "raw": 1,
    "dataset": 2,
    "semantic_ids": 1,
    "checkpoint": 2,
    "batch": 1,
    "metrics": 2,
    "values": 1,
    "bundle": 2,
}
MADE_BY = {
    "raw": "simulate",
    "dataset": "prepare",
    "semantic_ids": "ids",
    "checkpoint": "train",
    "batch": "train",
    "metrics": "evaluate",
    "values": "ablate",
    "bundle": "export",
}


@contextmanager
def write_artefact(folder: Path, kind: str, **fields: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield (scratch folder, manifest); on success hash the files, add the manifest and move the folder into place.

    The caller may add to the manifest while it writes. On any exception, Ctrl-C included, the scratch folder is removed
    and an artefact that was there before stays as it was.
    """
    manifest: dict[str, Any] = {
        "kind": kind,
        "format_version": FORMAT_VERSIONS[kind],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        **fields,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    scratch.mkdir()
    try:
        yield scratch, manifest
        files = sorted(path for path in scratch.rglob("*") if path.is_file())
        known = manifest.get("files", {})  # hashes of files linked from an artefact that has them already
        names = {str(path.relative_to(scratch)): path for path in files}
        new = {name: path for name, path in names.items() if name not in known}
        with ThreadPoolExecutor(HASHED_AT_ONCE) as threads:
            hashes = dict(zip(new, threads.map(file_hash, new.values()), strict=True))
        manifest["files"] = {name: known.get(name) or hashes[name] for name in names}
        answers = {"model": manifest["model"]} if kind == "bundle" and "model" in manifest else {}  # the value formula, say
        manifest["fingerprint"] = fingerprint({**manifest["files"], **answers})
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str) + "\n")
        move_into_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def is_there(folder: Path) -> bool:
    """Whether there is an artefact, one that a killed run left half moved included."""
    _restore_interrupted_swap(folder)
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path, kind: str, *, verify: bool = False) -> dict[str, Any]:
    """The manifest of an artefact of this kind. `verify` also hashes every file. Raises InputError on any mismatch."""
    _restore_interrupted_swap(folder)
    command = f"recsys {MADE_BY[kind]}"
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} holds no {kind}: make it with `{command}`, or name the right folder")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise InputError(f"{folder / MANIFEST} is not valid JSON ({error}): make the {kind} again with `{command}`") from error
    if manifest.get("kind") != kind:
        raise InputError(f"{folder} holds a {manifest.get('kind')!r} artefact where a {kind} is needed: name another folder")
    wanted = FORMAT_VERSIONS[kind]
    if manifest.get("format_version") != wanted:
        raise InputError(
            f"{folder} has {kind} format version {manifest.get('format_version')}, this recsys reads version {wanted}: "
            f"make it again with `{command}`"
        )
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or (verify and file_hash(folder / name) != digest):
            raise InputError(f"{folder / name} is missing or differs from its manifest: make the {kind} again with `{command}`")
    return manifest


def fingerprint(value: Any) -> str:
    """A short hash of any JSON value, the same for the same content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_version() -> str:
    """The commit of the code, marked when the tree has changes; "unknown" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def move_into_place(scratch: Path, folder: Path) -> None:
    """Make `scratch` the artefact `folder`; what was there is gone. Killed in between, the old one comes back."""
    if folder.exists():
        folder.rename(_aside(folder))
    scratch.rename(folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)


def _restore_interrupted_swap(folder: Path) -> None:
    """A run killed between the two renames left the previous artefact aside: bring it back."""
    if not folder.exists() and _aside(folder).exists():
        _aside(folder).rename(folder)


def _remove_leftovers(folder: Path) -> None:
    _restore_interrupted_swap(folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        process = leftover.name.split(".")[-2]
        if not (process.isdigit() and Path(f"/proc/{process}").exists()):
            shutil.rmtree(leftover, ignore_errors=True)
