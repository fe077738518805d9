"""From a run's journal to the store: each entry once, in order, by the process that wrote it or by a later one."""

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from recsys.track import bulk
from recsys.track.spool import JOURNAL, LOCAL, Entry, Journal, known_id, log, remember_id
from recsys.track.store import ANSWERS, StoreAwayError, artefact_location, is_away, shown
from recsys.track.tags import BUSY_S, INHERITED, LOCAL_ID, PARENT_TAG

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

VALUES_AT_ONCE = 20_000
PARAMS_PER_CALL = 100


class NotYetError(Exception):
    """The run hangs on another one, which the store does not know yet."""


def deliver(journal: Journal, client: "MlflowClient", uri: str, *, anew: bool = False) -> None:
    """Send what the journal holds. `anew`: an earlier process may have begun. Raises whatever the store does where it is away.

    What the store refuses for good is said in one line and left out.
    """
    if "run_id" not in journal.state:
        journal.taken(0, **_begin(journal.header, client, uri, anew))
    run_id = journal.state["run_id"]
    while ahead := journal.ahead():
        entry, entries = _joined(ahead)
        try:
            _send(entry, journal, run_id, client, uri)
        except Exception as error:
            if not _is_refused(error, uri):
                raise
            log.warning(
                f"The MLflow store {shown(uri)} refuses {entry['op']} of run {run_id}: {str(error).partition(chr(10))[0]}"
            )
        journal.taken(entries)


def experiment_id(client: "MlflowClient", name: str, uri: str) -> str:
    """The experiment, which is made when absent. Raises InputError when it was deleted."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artefact_location(uri)))
        except MlflowException:  # another process may have made it first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        mend = f"restore it with `mlflow experiments restore -x {found.experiment_id}`, or choose another name"
        raise InputError(f"The MLflow experiment {name!r} was deleted: {mend}")
    return str(found.experiment_id)


def create(header: Entry, client: "MlflowClient", uri: str, *, anew: bool = False) -> Entry:
    """Make the run; returns what its journal has to know. Raises NotYetError where the store does not know its parent."""
    tags, name = dict(header["tags"]), header["name"]
    if header["parent"] is None:
        where = experiment_id(client, header["experiment"], uri)
    else:
        above = client.get_run(_known(header["parent"], uri))
        where = above.info.experiment_id
        tags = {key: value for key, value in above.data.tags.items() if key in INHERITED} | tags
        tags[PARENT_TAG] = above.info.run_id
    made = client.search_runs([where], f"tags.`{LOCAL_ID}` = '{header['local']}'") if anew else []
    if made:
        return _state(made[0])
    tags[LOCAL_ID] = header["local"]
    return _state(client.create_run(where, start_time=header["start_ms"], run_name=name, tags=tags))


def begin_again(run_id: str, client: "MlflowClient") -> Entry:
    """Set a run of the store to RUNNING; returns what its journal has to know."""
    found = client.get_run(run_id)
    client.update_run(run_id, status="RUNNING")
    return _state(found)


def _state(run: Any) -> Entry:
    busy_s = float(run.data.tags.get(BUSY_S) or 0.0)
    return {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id, "busy_s": busy_s}


def _begin(header: Entry, client: "MlflowClient", uri: str, anew: bool) -> Entry:
    try:
        if "resume" in header:
            return begin_again(_known(header["resume"], uri), client)
        state = create(header, client, uri, anew=anew)
    except Exception as error:
        if _is_refused(error, uri):  # the run, its parent or its experiment was deleted, and may be restored
            raise NotYetError(str(error)) from error
        raise
    if header["parent"] is None:
        with suppress(OSError):
            remember_id(header["local"], state["run_id"], uri)
    return state


def _known(run_id: str, uri: str) -> str:
    known = known_id(run_id, uri)
    if known.startswith(LOCAL):
        raise NotYetError(f"run {run_id} has not been sent")
    return known


def _joined(entries: list[Entry]) -> tuple[Entry, int]:
    """The first entry and how many it stands for: metrics take along the metrics that follow them."""
    values: list[Any] = []
    for place, entry in enumerate(entries):
        if entry["op"] != "metrics" or len(values) >= VALUES_AT_ONCE:
            return ({"op": "metrics", "values": values}, place) if place else (entry, 1)
        values += entry["values"]
    return {"op": "metrics", "values": values}, len(entries)


def _send(entry: Entry, journal: Journal, run_id: str, client: "MlflowClient", uri: str) -> None:
    match entry["op"]:
        case "metrics":
            bulk.log_metrics(client, run_id, entry["values"], uri)
        case "withdraw":
            _withdraw(client, run_id, entry, uri)
        case "params":
            _params(client, run_id, entry["values"])
        case "tag":
            client.set_tag(run_id, entry["name"], entry["value"])
        case "dataset":
            _dataset(client, run_id, entry)
        case "artefact":
            path = journal.folder / entry["path"]
            (client.log_artifacts if path.is_dir() else client.log_artifact)(run_id, str(path), entry["under"])
            journal.forget(entry["path"])
        case "register":
            from recsys.track.registry import register

            register(run_id, entry["name"], entry["alias"], folder=entry["folder"], tags=entry["tags"], uri=uri)
        case "hand_over":  # another process goes on with the run
            pass
        case "close" if entry.get("orphaned") and client.get_run(run_id).info.status != "RUNNING":
            pass  # another process went on with the run and has ended it
        case "close":
            client.set_tag(run_id, BUSY_S, f"{journal.state['busy_s'] + entry['busy_s']:.3f}")
            client.set_terminated(run_id, entry["status"], entry["end_ms"])
        case unknown:
            raise AssertionError(unknown)


def _withdraw(client: "MlflowClient", run_id: str, entry: Entry, uri: str) -> None:
    """Make NaN of the run's metrics under the prefixes that are not kept."""
    names = client.get_run(run_id).data.metrics.keys() - set(entry["keep"])
    gone = sorted(name for name in names if name.startswith(tuple(entry["under"])))
    if gone:
        bulk.log_metrics(client, run_id, [(name, math.nan, entry["time"], 0) for name in gone], uri)


def _params(client: "MlflowClient", run_id: str, values: dict[str, str]) -> None:
    from mlflow.entities import Param

    entries = [Param(name, value) for name, value in values.items()]
    for start in range(0, len(entries), PARAMS_PER_CALL):
        client.log_batch(run_id, params=entries[start : start + PARAMS_PER_CALL])


def _dataset(client: "MlflowClient", run_id: str, entry: Entry) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    tags = [InputTag(MLFLOW_DATASET_CONTEXT, entry["context"])]
    client.log_inputs(run_id, [DatasetInput(Dataset(**entry["dataset"]), tags)])


def _is_refused(error: Exception, uri: str) -> bool:
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in ANSWERS
    if isinstance(error, InputError):  # of the registry: no such folder
        return not isinstance(error, StoreAwayError)
    return isinstance(error, FileNotFoundError) and not is_away(uri, error)


def orphaned(journal: Journal) -> Entry:
    """How a run ended whose process is gone and did not say so."""
    end_s = (Path(journal.folder) / JOURNAL).stat().st_mtime
    return {"op": "close", "status": "KILLED", "busy_s": 0.0, "end_ms": int(end_s * 1000), "orphaned": True}


def now_ms() -> int:
    return int(time.time() * 1000)


def as_dataset(name: str, digest: str, source: str, schema: Any, profile: Any) -> dict[str, str]:
    """The fields of MLflow's Dataset; schema and profile are JSON in text."""
    return {
        "name": name, "digest": digest[:36], "source_type": "local", "source": json.dumps({"uri": source}),
        "schema": json.dumps(schema), "profile": json.dumps(profile),
    }  # fmt: skip
