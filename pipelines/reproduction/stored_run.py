"""What a run keeps of itself for `recsys reproduce`, or the sentence that says why it cannot be reproduced."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipelines.origin import ORIGIN_FILE, Origin
from pipelines.reproduction.agreement import judged
from pipelines.tracking import EXPERIMENT
from pipelines.workspace import parts
from recsys import track
from recsys.config import RunConfig, load
from recsys.errors import InputError
from recsys.protocol import Protocol
from recsys.track import RunSummary

BEGINNING = re.compile("[0-9a-f]{4,31}")  # of an id, which has 32 digits
CONFIG_FILE = "config.yaml"
NOT_WHOLE = {  # tag of a run that is no pipeline run -> what trains it again
    "ablation": "one training of an ablation: run the same `recsys ablate` in another workspace",
    "trial": "a trial of a sweep: train its config with `recsys train` and reproduce that run",
    "sweep": "a sweep: run the same `recsys sweep` in another workspace, or reproduce a run of its best config",
    "stage": "one stage of a pipeline run: name that run, its parent",
}


@dataclass(frozen=True)
class Stored:
    """`data` is the fingerprint of the dataset."""

    run: RunSummary
    config: RunConfig
    origin: Origin
    data: str

    def trained(self, metric: str) -> bool:
        """Whether the metric is of a part that this run trained, or of a floor: after `--only` others stood there already."""
        if metric.startswith("floor/"):
            return True
        return self.trained_kind("ranker" if metric.rsplit("/", 1)[-1] in self.config.tasks else "retriever")

    def trained_kind(self, part: str) -> bool:
        """Whether the run trained a part of this one's kind, the ranker or what finds candidates."""
        return any((part == "ranker") == (each == "ranker") for each in self.origin.parts)

    @property
    def untrained(self) -> list[str]:
        """Parts of the config that another run had trained in its workspace."""
        return [part for part in parts(self.config) if part not in self.origin.parts]


def read_stored(run_id: str, *, uri: str | None = None) -> Stored:
    """Raises InputError where the run is unknown, unfinished, no pipeline run, or lacks what a reproduction needs."""
    run_id = _whole(run_id, uri)
    run = track.get_run(run_id, uri=uri)
    if track.is_deleted(run_id, uri=uri):
        raise InputError(f"run {run_id} was deleted: restore it with `mlflow runs restore --run-id {run_id}`")
    for tag, what in NOT_WHOLE.items():
        if tag in run.tags:
            raise InputError(f"run {run_id} is {what}")
    if run.status != "FINISHED":
        raise InputError(f"run {run_id} is {run.status} and not FINISHED: only a whole run can be reproduced")
    if not judged(run.metrics):
        raise InputError(f"run {run_id} has no test metrics to agree with: run `recsys evaluate` in its workspace first")
    config, origin = _config(run_id, uri), _origin(run_id, uri)
    if origin.began_from is not None:
        raise InputError(
            f"run {run_id} began --from the models in {origin.began_from}, which it does not keep: "
            "reproduce the run that trained those"
        )
    _check_protocol(run, config)
    return Stored(run, config, origin, run.tags[track.DATA])


def _whole(run_id: str, uri: str | None) -> str:
    """The id of the one pipeline run that begins so, as `recsys compare` shows it; else the id as it is."""
    if not BEGINNING.fullmatch(run_id):
        return run_id
    found = [run.id for run in track.list_runs(EXPERIMENT, uri=uri) if run.id.startswith(run_id)]
    if len(found) > 1:
        raise InputError(f"{len(found)} runs have an id that begins with {run_id}: give more of it")
    return found[0] if found else run_id


def _config(run_id: str, uri: str | None) -> RunConfig:
    try:
        return load(_document(run_id, CONFIG_FILE, uri), stored=True)
    except InputError as error:
        raise InputError(f"run {run_id}: {error}") from error


def _origin(run_id: str, uri: str | None) -> Origin:
    try:
        return Origin.model_validate(json.loads(_document(run_id, ORIGIN_FILE, uri).read_text()))
    except ValidationError as error:
        raise InputError(
            f"run {run_id}: {ORIGIN_FILE} is not of this version ({error.error_count()} fields): check out the run's commit"
        ) from error


def _document(run_id: str, name: str, uri: str | None) -> Path:
    found = track.artefact(run_id, name, uri=uri)
    if found is None:
        raise InputError(
            f"run {run_id} keeps no {name}, as runs of earlier versions and runs whose artefacts are gone: train it anew with "
            "`recsys train`"
        )
    return found


def _check_protocol(run: RunSummary, config: RunConfig) -> None:
    was, now = run.tags.get(track.PROTOCOL), Protocol.of(config).line
    if was != now:
        raise InputError(
            f"run {run.id} was judged by another protocol ({was}) than its config says here ({now}): check out its commit, "
            f"{run.tags.get(track.COMMIT, 'which is not stored')}, or evaluate it again with the config it was trained with"
        )
