"""What is known of a candidate and of the champion: read from the store once, so that the gates only judge."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.per_user import FOLDER, METRICS_FILE, PER_USER_FILE
from recsys import track
from recsys.errors import InputError

if TYPE_CHECKING:
    import polars as pl

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"


@dataclass(frozen=True)
class Measured:
    """A version and what its run left. `per_user` has a row for each user and model."""

    version: track.Version
    run: track.RunSummary | None  # None: absent or deleted
    per_user: "pl.DataFrame | None"  # None: not stored, or not readable
    slice_users: dict[str, int] | None  # None: not stored
    lost: tuple[str, ...] = ()  # files of the bundle

    @property
    def number(self) -> int:
        return self.version.number

    def metric(self, name: str) -> float | None:
        return None if self.run is None else self.run.metrics.get(name)

    def names(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names of the metrics that begin so."""
        return sorted(name.removeprefix(prefix) for name in (self.run.metrics if self.run else {}) if name.startswith(prefix))


@dataclass(frozen=True)
class Facts:
    candidate: Measured
    champion: Measured | None  # None: there is none yet
    named: bool = False  # the version was asked for by its number

    @property
    def same(self) -> bool:
        """Whether the candidate is the champion."""
        return self.champion is not None and self.champion.number == self.candidate.number

    def differs(self, tag: str) -> str | None:
        """How the champion's run differs from the candidate's in a tag; None where it does not."""
        assert self.champion is not None
        if self.candidate.run is None or self.champion.run is None:
            return None
        mine, theirs = (run.tags.get(tag, "not stated") for run in (self.candidate.run, self.champion.run))
        return None if mine == theirs else f"{tag} {mine}, version {self.champion.number} has {theirs}"


def facts(model: str, version: int | None, *, uri: str | None) -> Facts:
    """Read the candidate, or the version of this number, and the champion. Raises InputError without something to judge."""
    found = track.get_alias(model, CANDIDATE, uri=uri) if version is None else track.get_version(model, version, uri=uri)
    if found is None:
        raise InputError(
            f"The model {model!r} has no version with the alias {CANDIDATE!r}: export a run to register one, or name a version"
        )
    candidate = _measured(found, uri, bundle=True)
    if candidate.run is None:
        raise InputError(
            f"The run {found.run_id} of version {found.number} of {model!r} was deleted: restore it with "
            f"`mlflow runs restore --run-id {found.run_id}`, or export another"
        )
    champion = track.get_alias(model, CHAMPION, uri=uri)
    data = candidate.run.tags.get(track.DATA, "")
    return Facts(candidate, None if champion is None else _measured(champion, uri, data=data), named=version is not None)


def on_other_data(data: str) -> str:
    """Among a run's artefacts: the folder with what its model reaches on the dataset of this fingerprint, not its own."""
    return f"metrics_on/{data}"


def _measured(version: track.Version, uri: str | None, *, bundle: bool = False, data: str = "") -> Measured:
    """`data`: the dataset that is asked for. Where the model was judged on it, too, that counts, else its own one's."""
    run = track.run_of(version, uri=uri)
    if run is None:
        return Measured(version, None, None, None)
    folder = track.artefact(run.id, FOLDER, uri=uri)
    if (
        data
        and run.tags.get(track.DATA) != data
        and (on_it := track.artefact(run.id, on_other_data(data), uri=uri)) is not None
    ):
        run, folder = _judged_on(run, data, on_it), on_it
    lost = tuple(track.missing_files(version, uri=uri)) if bundle else ()
    return Measured(version, run, _per_user(folder), _slice_users(folder), lost)


def _judged_on(run: track.RunSummary, data: str, folder: Path) -> track.RunSummary:
    """The run as if it had been evaluated on this dataset alone. Raises InputError where its metrics cannot be read."""
    from pipelines.evaluate import flat_metrics
    from recsys.protocol import Protocol

    try:
        result = json.loads((folder / METRICS_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / METRICS_FILE} of run {run.id} cannot be read ({error}): evaluate it there again"
        ) from error
    others = {name: value for name, value in run.metrics.items() if not name.startswith(track.MEASURED)}
    protocol = Protocol.model_validate({name: value for name, value in result["protocol"].items() if name != "hash"})
    return replace(
        run, metrics=others | flat_metrics(result), tags={**run.tags, track.DATA: data, track.PROTOCOL: protocol.line}
    )


def _per_user(folder: Path | None) -> "pl.DataFrame | None":
    """None where it is absent or cannot be read."""
    import polars as pl

    try:
        return None if folder is None else pl.read_parquet(folder / PER_USER_FILE)
    except (pl.exceptions.PolarsError, OSError):
        return None


def _slice_users(folder: Path | None) -> dict[str, int] | None:
    """Users of each slice; None where metrics.json does not say, or cannot be read."""
    try:
        result = json.loads((folder / METRICS_FILE).read_text()) if folder else {}
    except (OSError, ValueError):
        return None
    slices = result.get("retrieval", {}).get("slices")
    return None if slices is None else {name: int(part["users"]) for name, part in slices.items()}
