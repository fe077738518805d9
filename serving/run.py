"""Start, await and stop the service: in the foreground for `recsys serve`, in the background for demos and tests."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn
from urllib.error import URLError
from urllib.request import urlopen

from recsys.errors import InputError
from serving.bundle import Bundle

BUNDLE_VARIABLE, WORKERS_VARIABLE = "RECSYS_BUNDLE", "RECSYS_WORKERS"  # how the service's processes learn their settings
ROOT = Path(__file__).parent.parent


def serve(bundle: Path, host: str = "127.0.0.1", port: int = 3000, workers: int = 1) -> NoReturn:
    """Check the bundle and the port, then become BentoML's server. Ctrl-C stops it."""
    Bundle.load(bundle)
    check_free(host, port)
    command = _command(host, port)
    os.execvpe(command[0], command, _environment(bundle, workers, tempfile.mkdtemp(prefix="recsys-serve-")))


@contextmanager
def running_service(bundle: Path, port: int | None = None, workers: int = 1) -> Iterator[str]:
    """The url of a service that is ready to answer, stopped at the end of the block."""
    Bundle.load(bundle)
    port = port or free_port()
    check_free("127.0.0.1", port)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="recsys-serve-") as scratch:
        process = start_background(bundle, port=port, workers=workers, scratch=Path(scratch))
        try:
            wait_ready(url, process=process, log=Path(scratch) / "log")
            yield url
        finally:
            stop(process)


def start_background(bundle: Path, *, port: int, scratch: Path, workers: int = 1) -> subprocess.Popen[bytes]:
    """Start a server on 127.0.0.1 that keeps its log and its metrics under `scratch`."""
    with (scratch / "log").open("wb") as log:
        return subprocess.Popen(
            _command("127.0.0.1", port),
            env=_environment(bundle, workers, str(scratch)),
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
    return [sys.executable, "-m", "bentoml", "serve", "serving.service:Recommender", *where]


def _environment(bundle: Path, workers: int, scratch: str) -> dict[str, str]:
    """BENTOML_HOME is the server's own: a server empties the metrics folder under it when it starts, another server's too."""
    return {
        **os.environ,
        BUNDLE_VARIABLE: str(bundle.absolute()),
        WORKERS_VARIABLE: str(workers),
        "BENTOML_HOME": scratch,
        "BENTOML_DO_NOT_TRACK": "True",
    }
