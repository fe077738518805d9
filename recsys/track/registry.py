"""Registered models: versions of a bundle, and the aliases (candidate, champion, previous) that point to them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.artefact import MANIFEST
from recsys.errors import InputError
from recsys.track.reading import artefact
from recsys.track.runs import RunSummary, get_run
from recsys.track.store import decode, encode, open_store, refusals, resolve_uri, shown, unless_absent
from recsys.track.tags import COMMIT, DATA, LOCK, PROTOCOL

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

MAX_DESCRIPTION = 5000  # characters that the store has room for


@dataclass(frozen=True)
class Version:
    """A version of a registered model: the bundle that a run exported."""

    model: str
    number: int
    run_id: str
    source: str
    tags: dict[str, str]

    @property
    def folder(self) -> str:
        """Where the bundle lies among the run's artefacts."""
        return self.source.removeprefix(f"runs:/{self.run_id}/")


def register(
    run_id: str,
    name: str,
    alias: str,
    *,
    folder: str = "bundle",
    tags: Mapping[str, str] | None = None,
    uri: str | None = None,
) -> int:
    """Register the run's artefact folder as the model's next version, point the alias to it and return its number.

    What is a version of the model already stays that version: a run whose end is said twice has one. It inherits the run's
    data, commit, lock and protocol tags. It refers to the folder and does not copy it, so
    a folder that is registered must not be written again. Raises InputError when the run or the folder is absent, or a
    name is one that MLflow refuses.
    """
    uri = resolve_uri(uri)
    run = get_run(run_id, uri=uri)
    client = open_store(uri)
    if not client.list_artifacts(run_id, folder):
        raise InputError(f"Run {run_id} has no artefact folder {folder!r}: export its model first")
    inherited = {key: run.tags[key] for key in (DATA, COMMIT, LOCK, PROTOCOL) if key in run.tags}
    with refusals():
        if unless_absent(lambda: client.get_registered_model(name)) is None:
            client.create_registered_model(name)
        source = f"runs:/{run_id}/{folder}"
        of_run = client.search_model_versions(f"run_id = '{run_id}'")
        known = [each for each in of_run if each.name == name and each.source == source]
        version = (
            max(known, key=lambda each: int(each.version))
            if known
            else client.create_model_version(name, source, run_id, tags={**inherited, **(tags or {})})
        )
        client.set_registered_model_alias(name, alias, version.version)
    return int(version.version)


def get_alias(name: str, alias: str, *, uri: str | None = None) -> Version | None:
    """The version that an alias of a registered model points to; None when the model, the alias or the version is absent."""
    client = open_store(resolve_uri(uri))
    model = unless_absent(lambda: client.get_registered_model(name))
    if model is None or alias not in model.aliases:
        return None
    found = unless_absent(lambda: client.get_model_version(name, model.aliases[alias]))
    return None if found is None else _version(found)


def get_version(name: str, number: int, *, uri: str | None = None) -> Version:
    """A version by its number. Raises InputError, with the numbers there are, when the model or the version is absent."""
    uri = resolve_uri(uri)
    client = open_store(uri)
    if unless_absent(lambda: client.get_registered_model(name)) is None:
        raise InputError(f"The MLflow store {shown(uri)} has no model {name!r}: export a run to register one")
    found = unless_absent(lambda: client.get_model_version(name, str(number)))
    if found is None:
        known = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
        raise InputError(f"The model {name!r} has no version {number}: choose from {known}")
    return _version(found)


def run_of(version: Version, *, uri: str | None = None) -> RunSummary | None:
    """The run that exported the version; None when it is absent or was deleted."""
    client = open_store(resolve_uri(uri))
    found = unless_absent(lambda: client.get_run(version.run_id))
    if found is None or found.info.lifecycle_stage == "deleted":
        return None
    return get_run(version.run_id, uri=uri)


def set_alias(name: str, alias: str, version: int, *, uri: str | None = None) -> None:
    """Point an alias to a version. Raises InputError when the version is absent."""
    client = open_store(resolve_uri(uri))
    with refusals():
        client.set_registered_model_alias(name, alias, str(version))


def tag_version(name: str, version: int, tags: Mapping[str, str | None], *, uri: str | None = None) -> None:
    """Write tags on a version of a registered model; None takes a tag away."""
    client = open_store(resolve_uri(uri))
    with refusals():
        for key, value in tags.items():
            if value is None:
                client.delete_model_version_tag(name, str(version), encode(key))
            else:
                client.set_model_version_tag(name, str(version), encode(key), value)


def describe_version(name: str, version: int, section: str, *, uri: str | None = None) -> None:
    """Put a section of Markdown, which begins with its heading, at the end of a version's description.

    It takes the place of a section with the same heading and of what follows that; what stands before stays.
    """
    client = open_store(resolve_uri(uri))
    heading = section.partition("\n")[0]
    before = (client.get_model_version(name, str(version)).description or "").partition(heading)[0]
    text = before + section
    cut = text if len(text) <= MAX_DESCRIPTION else text[: MAX_DESCRIPTION - 4].rpartition("\n")[0] + "\n..."
    client.update_model_version(name, str(version), cut)


def missing_files(version: Version, *, uri: str | None = None) -> list[str]:
    """The files of the version's bundle that are not there; its manifest alone where that is gone."""
    path = artefact(version.run_id, f"{version.folder}/{MANIFEST}", uri=uri)
    if path is None:
        return [MANIFEST]
    named = json.loads(path.read_text()).get("files", {})
    return sorted(set(named) - _files(open_store(resolve_uri(uri)), version.run_id, version.folder, ""))


def fetch(version: Version, into: Path, *, uri: str | None = None) -> Path:
    """Copy the version's bundle below the folder `into` and return where it is. Raises InputError when it is gone."""
    client = open_store(resolve_uri(uri))
    into.mkdir(parents=True, exist_ok=True)
    found = unless_absent(lambda: client.download_artifacts(version.run_id, version.folder, str(into)))
    if found is None:
        raise InputError(f"Version {version.number} of {version.model} has lost its bundle {version.source}: export it again")
    return Path(found)


def _version(found: Any) -> Version:
    tags = {decode(key): value for key, value in found.tags.items()}
    return Version(found.name, int(found.version), found.run_id, found.source, tags)


def _files(client: "MlflowClient", run_id: str, root: str, under: str) -> set[str]:
    """Paths of all files in a folder of a run's artefacts, below `root`."""
    found: set[str] = set()
    for each in client.list_artifacts(run_id, f"{root}/{under}".rstrip("/")):
        path = each.path.removeprefix(f"{root}/")
        found |= _files(client, run_id, root, path) if each.is_dir else {path}
    return found
