"""A real MLflow server on the loopback interface that can be killed, freeze and start again."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """Its store lies in `folder`, so that a server that is started again knows what the killed one was told."""

    def __init__(self, folder: Path, backend: str | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.backend = backend or f"sqlite:///{folder / 'server.db'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.backend, "--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env={**os.environ, **quiet}, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            try:
                door = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                door.request("GET", "/health")
                if door.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the MLflow server does not answer")

    def send(self, what: signal.Signals) -> None:
        """To the server and its worker."""
        assert self._process is not None
        os.killpg(self._process.pid, what)

    def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None
