"""Runs as the store has them: what was trained, with which settings, on which data, and how it scored."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from recsys.errors import InputError
from recsys.track.bulk import read_runs
from recsys.track.spool import LOCAL, known_id
from recsys.track.store import decode, open_store, resolve_uri, shown, unless_absent
from recsys.track.sync import send_waiting
from recsys.track.tags import BUSY_S, LOCAL_ID, MEASURED, PARENT_TAG

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Kind = Literal["pipelines", "stages", "both"]
FILTERS: dict[Kind, str] = {"pipelines": f"tags.`{PARENT_TAG}` IS NULL", "stages": f"tags.`{PARENT_TAG}` LIKE '%'", "both": ""}


@dataclass(frozen=True)
class RunSummary:
    """A run as the store knows it; `metrics` holds each metric's last value."""

    id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    start: datetime
    duration_s: float | None  # None while the first stage is running
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    artefacts: str = ""  # address of the folder of its artefacts
    parent: str | None = None  # id of the pipeline run that it is a stage of

    def floors(self, metric: str) -> dict[str, float]:
        """Value by floor of what was logged as `floor/<name>/<metric>`; `metric` carries no split, as in `NDCG@10`."""
        names = (name.split("/", 2) for name in self.metrics)
        found = [parts[1] for parts in names if len(parts) == 3 and parts[0] == "floor" and parts[2] == metric]
        return {name: self.metrics[f"floor/{name}/{metric}"] for name in found}


def get_run(run_id: str, *, uri: str | None = None) -> RunSummary:
    """The run with this id. Raises InputError when the store has none."""
    uri = resolve_uri(uri)
    client = open_store(uri)
    found = unless_absent(lambda: client.get_run(known_id(run_id, uri)))
    if found is None:
        raise absent(run_id, uri)
    return summary(found)


def absent(run_id: str, uri: str) -> InputError:
    mend = (
        "it waits in the spool, run `recsys sync`" if run_id.startswith(LOCAL) else "name a run id that `recsys compare` lists"
    )
    return InputError(f"The MLflow store {shown(uri)} has no run {run_id!r}: {mend}")


def list_runs(experiment: str, *, uri: str | None = None) -> list[RunSummary]:
    """The experiment's runs, newest first, without the runs of stages below them; what waits in the spool is sent before.

    Raises InputError when the store has no such experiment.
    """
    uri = resolve_uri(uri)
    client = open_store(uri)
    send_waiting(client, uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise InputError(f"The MLflow store {shown(uri)} has no experiment {experiment!r}: name one of {known}")
    return all_runs(client, found.experiment_id, "pipelines")


def all_runs(client: "MlflowClient", experiment_id: str, kind: Kind, *, deleted: bool = False) -> list[RunSummary]:
    """An experiment's pipeline runs, or their stages, or both; newest first."""
    read = read_runs(client, experiment_id, deleted=deleted)
    if read is None:
        return searched(client, experiment_id, FILTERS[kind], deleted=deleted)
    runs = sorted(map(summary, read), key=lambda run: run.start, reverse=True)
    return [run for run in runs if kind == "both" or (run.parent is None) == (kind == "pipelines")]


def searched(client: "MlflowClient", experiment_id: str, which: str, *, deleted: bool = False) -> list[RunSummary]:
    """An experiment's runs of which MLflow's filter `which` is true, newest first, page by page."""
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    runs: list[RunSummary] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], which, view, order_by=["attributes.start_time DESC"], page_token=token)
        runs += map(summary, page)
        if not (token := page.token):
            return runs


def summary(run: Any) -> RunSummary:
    """MLflow's run, in our words."""
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    busy_s = tags.pop(BUSY_S, None)
    tags.pop(LOCAL_ID, None)
    return RunSummary(
        id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        start=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        duration_s=None if busy_s is None else float(busy_s),
        params={decode(name): value for name, value in run.data.params.items()},
        metrics={
            decode(name): value for name, value in run.data.metrics.items() if value == value or not name.startswith(MEASURED)
        },
        tags=tags,
        artefacts=run.info.artifact_uri or "",
        parent=run.data.tags.get(PARENT_TAG),
    )
