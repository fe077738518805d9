"""Registered models: versions of a bundle, and the aliases (candidate, champion, previous) that point to them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import InputError
from recsys.track.runs import COMMIT, DATA, LOCK, PROTOCOL, get_run
from recsys.track.store import encode, open_store, refusals, resolve_uri, unless_absent


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

    The version inherits the run's data, commit, lock and protocol tags. It refers to the folder and does not copy it, so
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
        version = client.create_model_version(name, f"runs:/{run_id}/{folder}", run_id, tags={**inherited, **(tags or {})})
        client.set_registered_model_alias(name, alias, version.version)
    return int(version.version)


def get_alias(name: str, alias: str, *, uri: str | None = None) -> Version | None:
    """The version that an alias of a registered model points to; None when the model or the alias is absent."""
    client = open_store(resolve_uri(uri))
    model = unless_absent(lambda: client.get_registered_model(name))
    if model is None or alias not in model.aliases:
        return None
    found = client.get_model_version(name, model.aliases[alias])
    return Version(name, int(found.version), found.run_id, found.source, dict(found.tags))


def set_alias(name: str, alias: str, version: int, *, uri: str | None = None) -> None:
    """Point an alias to a version. Raises InputError when the version is absent."""
    client = open_store(resolve_uri(uri))
    with refusals():
        client.set_registered_model_alias(name, alias, str(version))


def tag_version(name: str, version: int, tags: Mapping[str, str], *, uri: str | None = None) -> None:
    """Write tags on a version of a registered model."""
    client = open_store(resolve_uri(uri))
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version), encode(key), value)


def fetch(version: Version, into: Path, *, uri: str | None = None) -> Path:
    """Copy the version's bundle below the folder `into` and return where it is. Raises InputError when it is gone."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    client = open_store(resolve_uri(uri))
    into.mkdir(parents=True, exist_ok=True)
    found = unless_absent(lambda: client.download_artifacts(version.run_id, version.folder, str(into)))
    if found is None:
        raise InputError(f"Version {version.number} of {version.model} has lost its bundle {version.source}: export it again")
    return Path(found)
