"""The MLflow store: its address, a client that has answered once, and MLflow's errors put as the user's to mend."""

import http.client
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from recsys.errors import InputError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DEFAULT_URI = "sqlite:///mlruns/mlflow.db"
SQLITE = "sqlite:///"
INSTEAD = f"check --store or MLFLOW_TRACKING_URI, or use {DEFAULT_URI}"
AGAIN = "start its server again and run the same command again"

PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
KNOCK_S = 3.0  # how long a server may take to say anything at all
# MLflow's client would try for a quarter of an hour before it says that a server is away.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}

ANSWERS = (
    *("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "ENDPOINT_NOT_FOUND", "CUSTOMER_UNAUTHORIZED"),
)  # MLflow's error codes for what another try would not change
REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # MLflow's error codes for what is absent or misnamed

T = TypeVar("T")


class StoreAwayError(InputError):
    """A store on a server that does not answer now."""


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
    """Where a new experiment keeps its artefacts: beside an SQLite file; for a database server in MLFLOW_DEFAULT_ARTIFACT_ROOT,
    or else beside the local default store; None leaves it to an MLflow server."""
    if uri.startswith(SQLITE):
        return str(_sqlite_file(uri).parent / "artifacts")
    if uri.startswith("http"):
        return None
    return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or str(_sqlite_file(DEFAULT_URI).parent / "artifacts")


def beside(uri: str) -> Path:
    """The folder of an SQLite store; for a server, that of the local default store."""
    return _sqlite_file(uri if uri.startswith(SQLITE) else DEFAULT_URI).parent


def open_store(uri: str) -> "MlflowClient":
    """A client whose store has answered once. Raises StoreAwayError where a server does not answer, else InputError."""
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
        said = f"The MLflow store {shown(uri)} cannot be opened ({reason})"
        if is_away(uri, error):
            raise StoreAwayError(f"{said}: {AGAIN}, or {INSTEAD}") from error
        raise InputError(f"{said}: {INSTEAD}") from error
    return cast("MlflowClient", _Reached(client, uri)) if uri.startswith("http") else client


class _Reached:
    """MLflow's client of a server that has answered once. A call raises StoreAwayError where it answers no more."""

    def __init__(self, client: "MlflowClient", uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._asking(found) if callable(found) else found

    def _asking(self, call: Callable[..., T]) -> Callable[..., T]:
        def ask(*words: Any, **options: Any) -> T:
            try:
                return call(*words, **options)
            except Exception as error:
                if getattr(error, "errno", None) is not None or not is_away(self._uri, error):  # errno: of a file here
                    raise
                raise StoreAwayError(
                    shown(f"The MLflow store {self._uri} answers no more ({_first_cause(error)}): {AGAIN}")
                ) from error

        return ask


def _first_cause(error: BaseException) -> str:
    """What MLflow's error began with, such as a refused connection; of a download, which keeps texts alone, the last line."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return str(error).strip().rpartition("\n")[2]


def is_away(uri: str, error: Exception) -> bool:
    """Whether an error may pass: a server that does not answer, or answers that it is not well."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return uri.startswith("http") and error.error_code not in ANSWERS
    status = getattr(getattr(error, "response", None), "status_code", 500)  # MLflow leaves some answers about artefacts raw
    return _server(uri) is not None and isinstance(error, (OSError, http.client.HTTPException)) and status >= 500


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
    elif (server := _server(uri)) is not None:
        if uri.startswith("http"):
            _knock(uri, *server)
        else:
            _connect(uri, *server)


def _server(uri: str) -> tuple[str, int] | None:
    """Host and port of a store that is a server."""
    parts = urlsplit(uri)
    port = PORTS.get(parts.scheme.partition("+")[0])
    return (parts.hostname, parts.port or port) if port and parts.hostname else None


def _connect(uri: str, host: str, port: int) -> None:
    """Connect to a database once, where MLflow would try for two minutes. Raises ImportError without its driver."""
    from sqlalchemy import create_engine, make_url, pool

    make_url(uri).get_dialect().import_dbapi()
    socket.create_connection((host, port), timeout=KNOCK_S).close()
    engine = create_engine(uri, poolclass=pool.NullPool)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _knock(uri: str, host: str, port: int) -> None:
    """Raises OSError or HTTPException where nobody answers. The certificate is MLflow's to check: nothing secret is sent."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    door: http.client.HTTPConnection = (
        http.client.HTTPSConnection(host, port, timeout=KNOCK_S, context=trusting)
        if uri.startswith("https")
        else http.client.HTTPConnection(host, port, timeout=KNOCK_S)
    )
    try:
        door.request("GET", urlsplit(uri).path + "/health")
        status = door.getresponse().status
    finally:
        door.close()
    if status >= 500:
        raise ConnectionError(f"it answers {status}")


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where machines read our JSON
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowClient(uri, registry_uri=uri)


def _sqlite_file(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).absolute()
