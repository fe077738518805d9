"""The server's own copies of bundles, live/models/FINGERPRINT: nobody writes there but the server.

A bundle is memory-mapped while it serves. From its own copy, a server is not touched by whatever happens to the folder that
a run exports to, and it can go back to a version, or start again, when that folder has another one.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.artefact import MANIFEST, read_manifest
from recsys.errors import InputError
from serving.models.deployment import Deployment, Placed

MODELS_FOLDER = "models"
KEPT = 3  # copies, those that the deployment names come on top
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")

Stamp = tuple[tuple[str, int, int, int], ...]


def copy_in(source: Path, live: Path) -> Placed:
    """Copy a bundle folder into the models folder, unless it is there; hashes are checked on the copy.

    Raises InputError, for a full disk too.
    """
    version = read_manifest(source, "bundle")["fingerprint"]
    with arriving(live) as scratch:
        if not (path := _path(live, version)).exists():
            _copy(source, scratch / version)
            put(scratch / version, live)
    return Placed(folder=path, version=version)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copytree(source, target)
    except OSError as error:  # a shutil.Error has a list: (from, to, reason) of each file
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise InputError(
            f"{source} cannot be copied to {target.parent.parent} ({str(reason).partition(': ')[0]}): "
            "free space there, or make it writable"
        ) from error


@contextmanager
def arriving(live: Path) -> Iterator[Path]:
    """A scratch folder on the same disk as the models folder; it is removed at the end, those of killed processes as well."""
    models = live / MODELS_FOLDER
    models.mkdir(parents=True, exist_ok=True)
    for leftover in models.glob(".*.tmp"):
        if not Path(f"/proc/{leftover.name.split('.')[1]}").exists():
            shutil.rmtree(leftover, ignore_errors=True)
    scratch = models / f".{os.getpid()}.tmp"
    scratch.mkdir(exist_ok=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put(arrived: Path, live: Path) -> Placed:
    """Move a bundle folder that arrived whole into the models folder. Raises InputError where its hashes do not hold."""
    version = read_manifest(arrived, "bundle", verify=True)["fingerprint"]
    path = _path(live, version)
    if not path.exists():
        try:
            arrived.rename(path)
        except OSError:
            if not path.exists():  # else another process was faster, with the same files
                raise
    return Placed(folder=path, version=version)


def place(live: Path, version: str) -> Placed:
    """A version that lies in the models folder. Raises InputError, with those there are; `version` never becomes a path."""
    known = versions(live)
    if version not in known:
        raise InputError(f"version is {version!r}: the models folder has {', '.join(known) or 'none'}")
    return Placed(folder=_path(live, version), version=version)


def versions(live: Path) -> list[str]:
    """What lies in the models folder, newest arrival first."""
    found = [path for path in (live / MODELS_FOLDER).glob("*") if _FINGERPRINT.fullmatch(path.name)]
    return [path.name for path in sorted(found, key=lambda path: -_arrived(path))]


def prune(live: Path, deployment: Deployment, keep: int = KEPT) -> None:
    """Remove all but the last `keep` copies and those that the deployment names."""
    named = {each.version for each in (deployment.live, deployment.previous, deployment.canary) if each is not None}
    for version in [each for each in versions(live)[keep:] if each not in named]:
        shutil.rmtree(_path(live, version), ignore_errors=True)


def stamp(folder: Path | None) -> Stamp:
    """What changes when anything in the folder does; () where it is absent."""
    try:
        entries = list(os.scandir(folder)) if folder is not None else []
        found = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in found))


def taken_in(deployment: Deployment, take: Callable[[Path], Placed]) -> Deployment:
    """The deployment with every bundle folder that has no version yet replaced by what `take` makes of it."""
    live = deployment.live
    changes: dict[str, Placed] = {}
    for name, each in {"live": live, "previous": deployment.previous, "canary": deployment.canary}.items():
        if each is not None and each.version is None:
            placed = take(each.folder)
            changes[name] = each.model_copy(update={"folder": placed.folder, "version": placed.version})
    if live.version is None:
        source = {"source": deployment.source or live.folder, "taken": changes["live"].version}
        return deployment.model_copy(update={**changes, **source})
    return deployment.model_copy(update=changes)


def _path(live: Path, version: str) -> Path:
    if not _FINGERPRINT.fullmatch(version):
        raise InputError(f"{version[:40]!r} is no version: a version is 16 hexadecimal digits, as in a bundle's {MANIFEST}")
    return live / MODELS_FOLDER / version


def _arrived(path: Path) -> int:
    try:
        return (path / MANIFEST).stat().st_ctime_ns  # the times that a copy keeps are those of the export
    except OSError:
        return 0
