"""Runs: what was trained, with which settings, on which data, and how it scored."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from recsys.artefact import code_version, fingerprint
from recsys.errors import InputError
from recsys.track.store import artefact_location, decode, encode, open_store, resolve_uri, shown, unless_absent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

# Tags that every run carries, and the one that evaluation adds.
DATA = "data"  # fingerprint of the dataset
COMMIT = "commit"  # of the code
LOCK = "lock"  # hash of the locked, or else the installed, package versions
PROTOCOL = "protocol"  # split, seen items and ties, in words: only runs that share it are ranked together

BUSY_S = "busy_s"  # seconds that processes worked on the run; the time between two stages does not count
METRICS_PER_CALL = 1000  # what an MLflow server takes in one request
PARAMS_PER_CALL = 100
FLUSH_AFTER_S = 5.0

Status = Literal["FINISHED", "FAILED", "KILLED"]
T = TypeVar("T")


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

    def floors(self, metric: str) -> dict[str, float]:
        """Value by floor of what was logged as `floor/<name>/<metric>`; `metric` carries no split, as in `NDCG@10`."""
        names = (name.split("/", 2) for name in self.metrics)
        found = [parts[1] for parts in names if len(parts) == 3 and parts[0] == "floor" and parts[2] == metric]
        return {name: self.metrics[f"floor/{name}/{metric}"] for name in found}


class Run:
    """A run that is open for writing: `start_run` and `resume_run` make it, `with` closes it and sets its status.

    Metrics are buffered and written in batches. Leaving the `with` block writes the rest and marks the run FINISHED,
    KILLED after Ctrl-C, FAILED after any other exception.
    """

    def __init__(self, client: "MlflowClient", run_id: str, experiment_id: str, uri: str, busy_s: float = 0.0) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._uri = uri
        self._began_s = time.monotonic() - busy_s
        self._flushed_s = time.monotonic()
        self._buffer: list[tuple[str, float, int, int]] = []
        self.run_id = run_id

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._close("FINISHED")
        else:
            self._close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    @property
    def hint(self) -> str:
        """Where to look at the run: its page on a server, or the command that shows a local store."""
        if self._uri.startswith("http"):
            return f"{shown(self._uri)}/#/experiments/{self._experiment_id}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {shown(self._uri)}  # run {self.run_id}"

    def metric(self, name: str, value: float, step: int = 0) -> None:
        """Log one value, a number or a tensor with one element."""
        self._buffer.append((encode(name), float(value), int(time.time() * 1000), step))
        if len(self._buffer) >= METRICS_PER_CALL or time.monotonic() - self._flushed_s > FLUSH_AFTER_S:
            self.flush()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        for name, value in values.items():
            self.metric(name, value, step)

    def flush(self) -> None:
        """Write the buffered metrics."""
        from mlflow.entities import Metric

        for batch in _batches(self._buffer, METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=[Metric(*entry) for entry in batch])
        self._buffer.clear()
        self._flushed_s = time.monotonic()

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, nested ones under dotted names. MLflow refuses another value for a name that the run has."""
        from mlflow.entities import Param

        entries = [Param(encode(name), value) for name, value in flatten(values).items()]
        for batch in _batches(entries, PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=batch)

    def tag(self, name: str, value: str) -> None:
        self._client.set_tag(self.run_id, encode(name), value)

    def artefact(self, path: Path, under: str | None = None) -> None:
        """Copy a file to `under/<its name>`, or a folder to `under/` (by default, to its own name)."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), under or path.name)
        elif path.is_file():
            self._client.log_artifact(self.run_id, str(path), under)
        else:
            raise InputError(f"{path} does not exist: an artefact is a file or a folder that does")

    def document(self, value: Mapping[str, Any], name: str) -> None:
        """Store a JSON (or, by its name, YAML) document as an artefact."""
        self._client.log_dict(self.run_id, dict(value), name)

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure under `name`, whose ending (.png, .svg) says the format."""
        self._client.log_figure(self.run_id, figure, name)

    def _close(self, status: Status) -> None:
        try:
            self.flush()
        finally:
            self._client.set_tag(self.run_id, BUSY_S, f"{time.monotonic() - self._began_s:.3f}")
            self._client.set_terminated(self.run_id, status)


def start_run(
    experiment: str,
    name: str,
    *,
    data: str,
    uri: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Run:
    """A new run, tagged with the dataset's fingerprint `data`, the commit and the lock; the experiment is made when absent.

    Raises InputError when the store cannot be opened or the experiment was deleted.
    """
    uri = resolve_uri(uri)
    client = open_store(uri)
    every_run = {DATA: data, COMMIT: code_version(), LOCK: lock_hash()}
    experiment_id = _experiment_id(client, experiment, uri)
    created = client.create_run(experiment_id, run_name=name, tags={**every_run, **(tags or {})})
    run = Run(client, created.info.run_id, experiment_id, uri)
    try:
        run.params(params or {})
    except BaseException:
        run._close("FAILED")
        raise
    return run


def resume_run(run_id: str, *, uri: str | None = None) -> Run:
    """Open a run again, so that a later stage adds to it. Raises InputError when the store has no such run."""
    uri = resolve_uri(uri)
    found = get_run(run_id, uri=uri)
    client = open_store(uri)
    client.update_run(run_id, status="RUNNING")
    return Run(client, run_id, client.get_run(run_id).info.experiment_id, uri, busy_s=found.duration_s or 0.0)


def get_run(run_id: str, *, uri: str | None = None) -> RunSummary:
    """The run with this id. Raises InputError when the store has none."""
    uri = resolve_uri(uri)
    client = open_store(uri)
    found = unless_absent(lambda: client.get_run(run_id))
    if found is None:
        raise InputError(f"The MLflow store {shown(uri)} has no run {run_id!r}: name a run id that `recsys compare` lists")
    return _summary(found)


def list_runs(experiment: str, *, uri: str | None = None) -> list[RunSummary]:
    """The experiment's runs, newest first. Raises InputError when the store has no such experiment."""
    uri = resolve_uri(uri)
    client = open_store(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise InputError(f"The MLflow store {shown(uri)} has no experiment {experiment!r}: name one of {known}")
    runs: list[RunSummary] = []
    token = None
    while True:
        page = client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"], page_token=token)
        runs += map(_summary, page)
        if not (token := page.token):
            return runs


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings, and lists of them, as one mapping of dotted names to text."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, (list, tuple)) and any(isinstance(each, Mapping) for each in value):
            value = {str(index): each for index, each in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def lock_hash() -> str:
    """A short hash of requirements/*.lock where the checkout has them, else of the installed packages' versions."""
    locks = sorted((Path(__file__).parents[2] / "requirements").glob("*.lock"))
    if locks:
        return hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:16]
    return fingerprint(sorted(f"{each.name}=={each.version}" for each in metadata.distributions()))


def _experiment_id(client: "MlflowClient", name: str, uri: str) -> str:
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


def _summary(run: Any) -> RunSummary:
    tags = {key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}
    busy_s = tags.pop(BUSY_S, None)
    return RunSummary(
        id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        start=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        duration_s=None if busy_s is None else float(busy_s),
        params={decode(name): value for name, value in run.data.params.items()},
        metrics={decode(name): value for name, value in run.data.metrics.items()},
        tags=tags,
    )


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
