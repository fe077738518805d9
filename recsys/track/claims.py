"""Claims: at most one process at a time does a named thing, through whatever store MLflow has.

MLflow moves an alias without asking what it was before, and its store may be SQLite, PostgreSQL or a server. What every one of
them has is a unique constraint on the names of experiments, deleted ones included. So a claim is an experiment `NAME/00000007`,
and number n + 1 may be made once n is over: deleted, which is how a claim is given back, or older than its lease, which is how
that of a killed process ends. Of all who saw n over, the store lets exactly one make n + 1. Deleted experiments are not shown
by MLflow's pages; `mlflow gc` removes them for good, and should not run while something is claimed.

Fencing numbers and leases: Gray and Cheriton 1989, "Leases", https://doi.org/10.1145/74850.74870. Differs from the paper: a
claim is not prolonged; who needs longer loses it.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError
from recsys.track.store import artefact_location, open_store, resolve_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LEASE_S = 60.0  # a holder needs under a second; a minute also covers clocks that differ by tens of seconds
POLL_S = 0.25
HOLDER = "holder"
NOTE = "Held for a moment, so that two commands do not do the same at once. It holds no runs."


@dataclass(frozen=True)
class Claim:
    """A claim that this process holds."""

    name: str
    number: int
    lease_s: float
    _client: "MlflowClient" = field(repr=False)
    _began_s: float = field(default_factory=time.monotonic, repr=False)

    def check(self) -> None:
        """Raise InputError unless the claim is this process's still, with time to spare for one more call of the store."""
        latest = _latest(self._client, self.name)
        late = time.monotonic() - self._began_s > self.lease_s / 2
        if late or latest is None or _number(latest) != self.number or _deleted(latest):
            raise InputError(
                f"This process took longer than {self.lease_s / 2:g} s over its claim {self.name!r}, and another may have it: "
                "run the command again"
            )


@contextmanager
def claimed(name: str, *, wait_s: float | None = None, lease_s: float = LEASE_S, uri: str | None = None) -> Iterator[Claim]:
    """Hold the claim `name` within the block; wait for it up to `wait_s`, by default until a dead holder's lease is over.

    Raises InputError with the holder where it is not to be had.
    """
    uri = resolve_uri(uri)
    client = open_store(uri)
    until_s = time.monotonic() + (lease_s + 5 if wait_s is None else wait_s)
    while True:
        latest = _latest(client, name)
        if latest is None or _over(latest, lease_s):
            number = 1 if latest is None else _number(latest) + 1
            made = _make(client, f"{name}/{number:08d}", uri)
            if made is not None:
                break
        if time.monotonic() > until_s:
            holder = latest.tags.get(HOLDER, "another process") if latest is not None else "another process"
            raise InputError(f"{holder} holds the claim {name!r}: run the command again in {lease_s:g} s")
        time.sleep(POLL_S)
    try:
        yield Claim(name, number, lease_s, client)
    finally:
        with suppress(Exception):  # what was done is done; a claim that cannot be given back ends with its lease
            client.delete_experiment(made)


def _latest(client: "MlflowClient", name: str) -> Any:
    """The experiment of the highest number, None where nobody ever claimed this."""
    from mlflow.entities import ViewType

    token = None
    while True:  # `_` in a name stands for any character, so other names may be among the answers
        page = client.search_experiments(ViewType.ALL, 50, f"name LIKE '{name}/%'", ["name DESC"], token)
        found = [each for each in page if each.name.rpartition("/")[0] == name]
        if found or not (token := page.token):
            return found[0] if found else None


def _make(client: "MlflowClient", name: str, uri: str) -> str | None:
    """The new experiment's id; None where another process was faster."""
    from mlflow.exceptions import MlflowException

    tags = {HOLDER: f"process {os.getpid()} on {socket.gethostname()}", "mlflow.note.content": NOTE}
    try:
        return str(client.create_experiment(name, artifact_location=artefact_location(uri), tags=tags))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_ALREADY_EXISTS", "TEMPORARILY_UNAVAILABLE"):  # the latter: SQLite is busy
            return None
        raise


def _number(claim: Any) -> int:
    return int(claim.name.rpartition("/")[2])


def _deleted(claim: Any) -> bool:
    return bool(claim.lifecycle_stage == "deleted")


def _over(claim: Any, lease_s: float) -> bool:
    return _deleted(claim) or abs(time.time() - claim.creation_time / 1000) > lease_s  # from the future: a clock was set back
