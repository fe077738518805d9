"""An endpoint that follows the champion while faults happen, and is asked all the time: which version answered, and how."""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serving.run import free_port, stop, wait_ready

ASK = json.dumps({"user_id": "u1", "k": 5})


@dataclass
class Asked:
    """A thread that asks for a list over and over. `versions`: how many answers each version gave."""

    port: int
    versions: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def total(self) -> int:
        return self.versions.total()

    def run(self) -> None:
        while not self._stop.is_set():
            door = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                door.request("POST", "/recommend", ASK, {"Content-Type": "application/json"})
                response = door.getresponse()
                body = json.loads(response.read())
                if response.status != 200 or not body["items"]:
                    self.failed[f"{response.status} {str(body)[:200]}"] += 1
                else:
                    self.versions[body["version"]] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed[repr(error)] += 1
            finally:
                door.close()
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def endpoint(model: str, uri: str, live: Path, *, every_s: float = 0.5) -> Iterator[tuple[str, Asked]]:
    """`recsys serve --model` on a port of its own, asked until the block ends: its url and what it answered."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--model", model, "--alias", "champion", "--store", uri]
    command += ["--port", str(port), "--every", str(every_s), "--live", str(live)]
    with tempfile.TemporaryDirectory(prefix="recsys-faults-") as scratch:
        log = Path(scratch) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, "COLUMNS": "300"},
                start_new_session=True,
            )  # fmt: skip
        asked = Asked(port)
        thread = threading.Thread(target=asked.run, daemon=True)
        try:
            wait_ready(url, process=process, log=log, timeout_s=120)
            thread.start()
            yield url, asked
        finally:
            asked.stop()
            stop(process, timeout_s=30)
