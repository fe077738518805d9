"""A run that is open for writing. Nothing here waits for the store but the start of a run that is there, and its end."""

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from recsys.artefact import code_version
from recsys.errors import InputError
from recsys.track.delivery import as_dataset, begin_again, create, now_ms
from recsys.track.facts import flatten, lock_hash
from recsys.track.outbox import Outbox
from recsys.track.runs import absent
from recsys.track.spool import LOCAL, Entry, Journal, known_id
from recsys.track.store import StoreAwayError, encode, open_store, resolve_uri, shown, unless_absent
from recsys.track.sync import send_waiting
from recsys.track.tags import COMMIT, DATA, LOCK, STAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.tracking import MlflowClient

NOTE = "mlflow.note.content"  # MLflow's page shows it, in Markdown

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Run:
    """`start_run`, `resume_run` and `Run.child` make it, `with` closes it and sets its status.

    What is said goes into a journal and from there to the store, both by threads of their own. Leaving the `with` block waits
    for the rest, unless the store is away, and marks the run FINISHED, KILLED after Ctrl-C, FAILED after any other exception.
    """

    def __init__(self, journal: Journal, uri: str, outbox: Outbox) -> None:
        self.journal = journal
        self._uri, self._outbox = uri, outbox
        self._began_s = time.monotonic()
        self._values: deque[tuple[str, float, int, int]] = deque()
        self._writing = threading.Lock()
        outbox.add(self)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._close("FINISHED")
        else:
            self._close("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")

    @property
    def run_id(self) -> str:
        """The store's; a local one, which every function of this package understands, until the store knows the run."""
        return str(self.journal.state.get("run_id") or self.journal.header.get("resume") or self.journal.header["local"])

    @property
    def hint(self) -> str:
        """Where to look at the run: its page on a server, or the command that shows a local store."""
        if self._uri.startswith("http"):
            return f"{shown(self._uri)}/#/experiments/{self.journal.state.get('experiment_id', '')}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {shown(self._uri)}  # run {self.run_id}"

    def child(self, name: str, stage: str, tags: Mapping[str, str] | None = None) -> "Run":
        """A run below this one, with its tags. The store learns of it from its journal, so that nobody waits here."""
        header = _new(None, name, {STAGE: stage, **(tags or {})}, parent=self.run_id)
        return Run(Journal.begin(self._uri, header), self._uri, self._outbox)

    def metric(self, name: str, value: float, step: int = 0) -> None:
        """Log one value, a number or a tensor with one element."""
        self._values.append((encode(name), float(value), int(time.time() * 1000), step))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        for name, value in values.items():
            self.metric(name, value, step)

    def metrics_anew(self, values: Mapping[str, float], under: Sequence[str]) -> None:
        """Log what was measured once more: what the run has under these prefixes and `values` lack is measured no longer.

        MLflow cannot delete a metric, so that those become NaN; `RunSummary` leaves them out.
        """
        self.write()
        self._tell("withdraw", under=list(under), keep=sorted(encode(name) for name in values), time=now_ms())
        self.metrics(values)

    def write(self) -> None:
        """Put the metrics so far into the journal."""
        with self._writing:
            taken = [self._values.popleft() for _ in range(len(self._values))]
            if taken:
                self._tell("metrics", values=taken)

    def flush(self) -> bool:
        """Wait until the store has everything; False where it is away."""
        return self._outbox.settle(self)

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters, nested ones under dotted names. MLflow refuses another value for a name that the run has."""
        self._tell("params", values={encode(name): value for name, value in flatten(values).items()})

    def tag(self, name: str, value: str) -> None:
        self._tell("tag", name=encode(name), value=value)

    def note(self, markdown: str) -> None:
        """The description that MLflow's page shows."""
        self._tell("tag", name=NOTE, value=markdown)

    def dataset(self, name: str, digest: str, source: str, *, schema: Any, profile: Any, context: str = "training") -> None:
        """What the run read, as an MLflow dataset."""
        self._tell("dataset", dataset=as_dataset(name, digest, source, schema, profile), context=context)

    def artefact(self, path: Path, under: str | None = None) -> None:
        """Copy a file to `under/<its name>`, or a folder to `under/` (by default, to its own name)."""
        if not path.exists():
            raise InputError(f"{path} does not exist: an artefact is a file or a folder that does")
        self._tell("artefact", path=self.journal.keep(path), under=under or path.name if path.is_dir() else under)

    def document(self, value: Mapping[str, Any], name: str) -> None:
        """Store a JSON (or, by its name, YAML) document as an artefact."""
        import yaml

        as_yaml = name.endswith((".yaml", ".yml"))
        plain = json.dumps(dict(value), indent=2, default=str)
        self.text(yaml.safe_dump(json.loads(plain), sort_keys=False) if as_yaml else plain, name)

    def text(self, text: str, name: str) -> None:
        self._new_file(name, lambda path: path.write_text(text))

    def figure(self, figure: "Figure", name: str) -> None:
        """Store a figure under `name`, whose ending (.png, .svg) says the format."""
        self._new_file(name, figure.savefig)

    def register(self, name: str, alias: str, *, folder: str, tags: Mapping[str, str] | None = None) -> int | None:
        """Register an artefact folder as `track.register` does; None where the store is away, which does it later."""
        from recsys.track.registry import register

        if self.flush():
            return register(self.run_id, name, alias, folder=folder, tags=tags, uri=self._uri)
        self._tell("register", name=name, alias=alias, folder=folder, tags=dict(tags or {}))
        return None

    def hand_over(self) -> str:
        """Leave the run open for another process, which goes on with it by `resume_run`; return its id."""
        self.write()
        self._tell("hand_over")
        self._outbox.close(self)
        return self.run_id

    def _tell(self, op: str, **what: Any) -> None:
        self.journal.append({"op": op, **what})

    def _new_file(self, name: str, write: Any) -> None:
        under, _, last = name.rpartition("/")
        path = self.journal.new_file(last)
        write(path)
        kept = path.relative_to(self.journal.folder) if path.is_relative_to(self.journal.folder) else path
        self._tell("artefact", path=str(kept), under=under or None)

    def _close(self, status: Status) -> None:
        self.write()
        self._tell("close", status=status, busy_s=time.monotonic() - self._began_s, end_ms=now_ms())
        self._outbox.close(self)


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

    Where a server is away the run begins in the spool, under a local id. Raises InputError when the store cannot be opened for
    another reason, or the experiment was deleted.
    """
    uri = resolve_uri(uri)
    tags = {DATA: data, COMMIT: code_version(), LOCK: lock_hash(), **(tags or {})}
    header, state = _new(experiment, name, tags), {}
    client = _reached(uri)
    if client is not None:
        state = create(header, client, uri)
    run = Run(Journal.begin(uri, header, **state), uri, Outbox.of(uri, client))
    run.params(params or {})
    return run


def resume_run(run_id: str, *, uri: str | None = None) -> Run:
    """Open a run again, so that a later stage adds to it. Raises InputError when the store has no such run.

    What waits in the spool is sent before. Where the store is away, it learns later what the stage adds.
    """
    uri = resolve_uri(uri)
    state: Entry = {}
    client = _reached(uri)
    if client is not None:
        send_waiting(client, uri)
        found = unless_absent(lambda: begin_again(known_id(run_id, uri), client))
        if found is None:
            raise absent(run_id, uri)
        state = found
    return Run(Journal.begin(uri, {"resume": known_id(run_id, uri)}, **state), uri, Outbox.of(uri, client))


def _reached(uri: str) -> "MlflowClient | None":
    try:
        return open_store(uri)
    except StoreAwayError:
        return None


def _new(experiment: Any, name: str, tags: Mapping[str, str], parent: str | None = None) -> Entry:
    return {
        "experiment": experiment, "name": name, "tags": dict(tags), "start_ms": now_ms(), "parent": parent,
        "local": f"{LOCAL}{uuid.uuid4().hex}",
    }  # fmt: skip
