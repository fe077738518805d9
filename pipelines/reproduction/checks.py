"""What differs between a run and a reproduction of it: code, packages, machine, data."""

from pathlib import Path
from typing import Any

from pipelines.origin import Origin, this_machine
from pipelines.reproduction.stored_run import Stored
from recsys import track
from recsys.artefact import code_version
from recsys.errors import InputError


def surroundings(stored: Stored) -> list[str]:
    """What differs between where the run was trained and here, a sentence each."""
    said = []
    for what, was, now in (
        ("commit", stored.run.tags.get(track.COMMIT, "not stored"), code_version()),
        ("lock of packages", stored.run.tags.get(track.LOCK, "not stored"), track.lock_hash()),
    ):
        if was != now:
            said.append(f"{what}: the run's is {was}, this one is {now}")
    for name, (was, now) in stored.origin.machine.differences(this_machine()).items():
        said.append(f"{name}: the run's is {was}, here it is {now}")
    return said


def doubts(stored: Stored) -> list[str]:
    """What may differ and is stored nowhere."""
    was = stored.run.tags.get(track.COMMIT, "")
    if was.endswith("-dirty"):
        return [f"the run's commit is {was}: what had changed since is not stored"]
    return ["the run's code was no git checkout: its commit is not known"] if was == "unknown" else []


def stood_there(stored: Stored) -> list[str]:
    """After `--only`, parts of another run that this one's metrics depend on."""
    before = [part for part in stored.untrained if stored.trained_kind(part)]
    trained, named = ", ".join(stored.origin.parts), ", ".join(before)
    return (
        [f"parts: the run trained only {trained}, beside {named} of another run, trained here with this config"]
        if before
        else []
    )


def check_data(origin: Origin, data: str, manifest: dict[str, Any], raw: Path) -> list[str]:
    """Nothing, or how the dataset is numbered otherwise. Raises InputError, with the files, where it says something else."""
    if manifest["data_fingerprint"] != data:
        changed = _changed(origin.inputs, manifest["inputs"])
        raise InputError(
            f"{raw} is not what the run was trained on, whose dataset is {data} and not {manifest['data_fingerprint']}: "
            f"{changed or 'the files are the same, and the `data` section is read otherwise by this code'}; "
            "name the raw logs as they were with --data"
        )
    if manifest["polars"] == origin.polars and manifest["content"] != origin.content:
        raise InputError(
            f"the files in {raw} are the same and the dataset made from them is not: `prepare` of this commit works otherwise; "
            "check out the run's commit and try again"
        )
    if manifest["polars"] != origin.polars:
        return [f"Polars: the run's is {origin.polars}, here it is {manifest['polars']}"]
    if manifest["fingerprint"] != origin.dataset:
        return ["dataset: the run's had grown by appended files, so its ids have other numbers and training other random draws"]
    return []


def _changed(was: dict[str, str], now: dict[str, str]) -> str:
    kinds = {
        "changed": sorted(name for name in was.keys() & now.keys() if was[name] != now[name]),
        "gone": sorted(was.keys() - now.keys()),
        "new": sorted(now.keys() - was.keys()),
    }
    return ", ".join(
        f"{name} is {kind}" if kind != "changed" else f"{name} has changed" for kind in kinds for name in kinds[kind]
    )
