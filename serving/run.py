"""Start, await and stop the service: in the foreground for `recsys serve`, in the background for demos and tests."""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError
from urllib.request import urlopen

from recsys.artefact import read_manifest
from recsys.errors import InputError
from serving.bundle.bundle import Bundle
from serving.models.deployment import DEPLOYMENT_FILE, follow_folder, read
from serving.processes import PARENT_VARIABLE, SCRATCH_VARIABLE
from serving.settings import SETTINGS_VARIABLE, Settings
from serving.starting import check_start

WORKERS_VARIABLE = "RECSYS_WORKERS"  # BentoML wants the number before anything can be read
BUNDLE_VARIABLE = "RECSYS_BUNDLE"  # for a bare `bentoml serve`: a bundle folder, served with the default settings
KEEP_ALIVE_S = 75  # longer than a reverse proxy keeps an idle connection, so that it is the proxy that closes it
ROOT = Path(__file__).parent.parent
logger = logging.getLogger("recsys.serving")


def serve(bundle: Path, settings: Settings, host: str = "127.0.0.1", port: int = 3000) -> NoReturn:
    """Check the bundle and the port, then become BentoML's server, which takes in later exports. Ctrl-C stops it."""
    check_source(bundle.absolute(), settings.live, Bundle.load)
    check_free(host, port)
    check_start(settings)
    follow_folder(bundle.absolute(), settings.live)
    command, scratch = _command(host, port), tempfile.mkdtemp(prefix="recsys-serve-")
    os.execvpe(command[0], command, {**_environment(settings, scratch), SCRATCH_VARIABLE: scratch})


def check_open(host: str, *, keys: bool, allowed: bool) -> None:
    """Refuse to let other machines in without keys by accident. A host that is no address is refused later, by its name."""
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        return
    if not (local or keys or allowed):
        raise InputError(
            f"--host {host} lets other machines in and no API key is asked for: make keys (`recsys keys add`, or "
            "`python -m serving add-key`), or pass --open"
        )


def check_source(bundle: Path, live: Path, look: Callable[[Path], object]) -> None:
    """Raise what `look` raises of a bundle, unless this server took an earlier one from the same folder, which goes on."""
    try:
        look(bundle)
    except InputError as error:
        if not (live / DEPLOYMENT_FILE).exists() or read(live).source != bundle:
            raise
        logger.warning("refused, the version that the server has goes on: %s", error)


def start_child(settings: Settings, host: str, port: int, scratch: Path) -> subprocess.Popen[bytes]:
    """Start a server that writes to this terminal; a Ctrl-C there reaches the caller alone, who is to stop it."""
    return subprocess.Popen(
        _command(host, port), env=_of_child(settings, scratch), stdin=subprocess.DEVNULL, start_new_session=True
    )


def settings_of_environment() -> Settings:
    """What the server was told: a settings file, or only a bundle. Raises InputError where it was told nothing."""
    if SETTINGS_VARIABLE in os.environ:
        return Settings.of_environment()
    if not (named := os.environ.get(BUNDLE_VARIABLE)):
        raise InputError(f"no bundle is named: set {BUNDLE_VARIABLE} to a bundle folder, or use `recsys serve`")
    bundle = Path(named).absolute()
    check_source(bundle, bundle.parent / "live", lambda folder: read_manifest(folder, "bundle"))
    settings = Settings(live=bundle.parent / "live", workers=int(os.environ.get(WORKERS_VARIABLE, "1")))
    follow_folder(bundle, settings.live)
    return settings


@contextmanager
def running_service(bundle: Path, port: int | None = None, live: Path | None = None, **settings: Any) -> Iterator[str]:
    """The url of a service that is ready to answer, stopped at the end of the block.

    `live`: its folder, a temporary one by default; `settings`: further fields of Settings.
    """
    Bundle.load(bundle)
    port = port or free_port()
    check_free("127.0.0.1", port)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="recsys-serve-") as scratch:
        live = live or Path(scratch) / "live"
        follow_folder(bundle.absolute(), live)
        process = start_background(Settings(live=live, **settings), port=port, scratch=Path(scratch))
        try:
            wait_ready(url, process=process, log=Path(scratch) / "log")
            yield url
        finally:
            stop(process)


def start_background(settings: Settings, *, port: int, scratch: Path) -> subprocess.Popen[bytes]:
    """Start a server on 127.0.0.1 that keeps its log and its metrics under `scratch`."""
    with (scratch / "log").open("wb") as log:
        return subprocess.Popen(
            _command("127.0.0.1", port),
            env=_of_child(settings, scratch),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own process group: a Ctrl-C in the terminal reaches us, and we stop it
        )


def wait_ready(
    url: str, timeout_s: float = 60, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Return once the service answers; raise with the end of its log if it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        with suppress(URLError, ConnectionError, TimeoutError), urlopen(f"{url}/readyz", timeout=5):
            return
        time.sleep(0.1)
    what = f"was not ready within {timeout_s:g} s" if process is None or process.poll() is None else "ended before it was ready"
    ending = log.read_text(errors="replace")[-2000:] if log else ""
    raise RuntimeError(f"the service at {url} {what}\n{ending}")


def stop(process: subprocess.Popen[bytes], timeout_s: float = 15) -> None:
    """Ask the server and its workers to end; end them if they do not."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def check_free(host: str, port: int) -> None:
    """Raise InputError unless a server could listen there."""
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise InputError(f"host {host!r} is not an IP address: use 127.0.0.1, or 0.0.0.0 for all interfaces") from error
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was freed a second ago is free
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port} on {host} cannot be used ({error}): stop what uses it or pass another --port"
            ) from error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(host: str, port: int) -> list[str]:
    where = ["--host", host, "--port", str(port), "--working-dir", str(ROOT)]
    how = ["--timeout-keep-alive", str(KEEP_ALIVE_S)]
    return [sys.executable, "-m", "bentoml", "serve", "serving.service:Recommender", *where, *how]


def _of_child(settings: Settings, scratch: Path) -> dict[str, str]:
    """A server that ends with this process, even where this one is killed."""
    return {**_environment(settings, str(scratch)), PARENT_VARIABLE: str(os.getpid())}


def _environment(settings: Settings, scratch: str) -> dict[str, str]:
    """BENTOML_HOME is the server's own: a server empties the metrics folder under it when it starts, another server's too."""
    path = Path(scratch) / "settings.json"
    path.write_text(settings.model_dump_json())
    return {
        **os.environ,
        SETTINGS_VARIABLE: str(path),
        WORKERS_VARIABLE: str(settings.workers),
        "BENTOML_HOME": scratch,
        "TMPDIR": scratch,  # BentoML leaves a folder there
        "BENTOML_DO_NOT_TRACK": "True",
    }
