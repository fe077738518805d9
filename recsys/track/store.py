"""The MLflow store: its address, a client that has answered once, and MLflow's errors put as the user's to mend."""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from recsys.errors import InputError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DEFAULT_URI = "sqlite:///mlruns/mlflow.db"
SQLITE = "sqlite:///"
INSTEAD = f"check --uri or MLFLOW_TRACKING_URI, or use {DEFAULT_URI}"

REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's error codes for what is absent or misnamed

T = TypeVar("T")


def resolve_uri(uri: str | None) -> str:
    """The argument, or else MLFLOW_TRACKING_URI, or else DEFAULT_URI; the path of an SQLite file is made absolute."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    return f"{SQLITE}{_sqlite_file(uri)}" if uri.startswith(SQLITE) else uri.rstrip("/")


def describe_store(uri: str | None = None) -> str:
    """Where runs go and whether they can: a sentence. Raises InputError, with the mend, when the store cannot be opened."""
    uri = resolve_uri(uri)
    if uri.startswith(SQLITE) and not _sqlite_file(uri).exists():
        above = next(folder for folder in _sqlite_file(uri).parents if folder.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            raise InputError(
                f"The MLflow store {uri} cannot be made in {above}: make that a folder you can write to, or {INSTEAD}"
            )
        return f"{uri} (made by the first run)"
    experiments = open_store(uri).search_experiments()
    return f"{shown(uri)} ({len(experiments)} experiment{'s' * (len(experiments) != 1)})"


def artefact_location(uri: str) -> str | None:
    """Where a new experiment keeps its artefacts: beside an SQLite file; None leaves it to the server."""
    return str(_sqlite_file(uri).parent / "artifacts") if uri.startswith(SQLITE) else None


def open_store(uri: str) -> "MlflowClient":
    """A client whose store has answered once. Raises InputError otherwise."""
    try:
        _make_ready(uri)
        client = _client(uri)
        client.search_experiments(max_results=1)
    except ImportError as error:
        raise InputError(
            f"The MLflow store {shown(uri)} needs the Python package {error.name}: install it, or {INSTEAD}"
        ) from error
    except Exception as error:  # MLflow's, SQLAlchemy's and the system's own, by the kind of store
        if "out-of-date database schema" in str(error):
            raise InputError(
                f"The MLflow store {shown(uri)} has another schema than MLflow {metadata.version('mlflow')} reads: "
                f"back it up, then run `mlflow db upgrade {shown(uri)}`"
            ) from error
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(f"The MLflow store {shown(uri)} cannot be opened ({reason}): {INSTEAD}") from error
    return client


def unless_absent(ask: Callable[[], T]) -> T | None:
    """The answer, or None where MLflow says that there is no such thing, or that nothing could be named so."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code in REFUSALS:
            return None
        raise


@contextmanager
def refusals() -> Iterator[None]:
    """Turn MLflow's refusal of a name or a version into an InputError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in REFUSALS:
            raise InputError(f"MLflow refuses this: {error}") from error
        raise


def encode(name: str) -> str:
    assert ":" not in name, f"{name!r}: MLflow's side of a name uses the colon for @"
    return name.replace("@", ":")


def decode(name: str) -> str:
    return name.replace(":", "@")


def shown(uri: str) -> str:
    """The address without the password that it may carry."""
    return re.sub(r"//[^/@]+@", "//***@", uri)


def _make_ready(uri: str) -> None:
    """What MLflow would do late or slowly: make the folder of an SQLite file, knock at a server's door without retries."""
    if uri.startswith(SQLITE):
        _sqlite_file(uri).parent.mkdir(parents=True, exist_ok=True)
    elif uri.startswith("http"):
        parts = urlsplit(uri)
        socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), timeout=5
        ).close()


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowClient(uri, registry_uri=uri)


def _sqlite_file(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).absolute()
