"""Kill -9 of servers while events are posted: is every acknowledged event in journal and state afterwards, and none twice?

`python -m benchmarks.crash --posts 20000`: workers are killed along the way, then the whole server; with SQLite and, where
redis-server is installed, with Redis. The exit status is 1 where an event was lost or counts twice. A line may stand in the
journal again: where a worker was killed between journal and state and the client's second attempt came to another one.
"""

import argparse
import asyncio
import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.measure import report
from benchmarks.redis import running_redis
from benchmarks.serving_bundle import small_bundle
from serving.models.deployment import Deployment, Placed, write
from serving.run import free_port, start_background, stop, wait_ready
from serving.settings import Settings
from serving.state.open import open_store

USERS = 200


@dataclass
class Poster:
    """Threads that post events, each with an id of its own, and again where no answer came, as a careful client does."""

    port: int
    threads: int = 8
    acknowledged: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)  # statuses that are not 200
    unanswered: int = 0
    begun_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._running = [threading.Thread(target=self._post, args=(number,), daemon=True) for number in range(self.threads)]
        for each in self._running:
            each.start()

    def stop(self) -> None:
        self._stop.set()
        for each in self._running:
            each.join(30)

    def _post(self, thread: int) -> None:
        connection, number = None, 0
        while not self._stop.is_set():
            id = f"{thread}-{number}"
            event: dict[str, Any] = {"id": id, "user_id": user_of(id), "item_id": f"item-{number % 40}"}
            event["time_ms"] = self.begun_ms + number
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("POST", "/events", json.dumps({"events": [event]}), {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
                connection = None
                time.sleep(0.02)
                continue
            if response.status == 200:
                self.acknowledged.append(id)
            else:
                self.refused.append(response.status)
            number += 1


def user_of(id: str) -> str:
    return f"u{hash_of(id) % USERS}"


def hash_of(id: str) -> int:
    thread, number = id.split("-")
    return int(thread) * 1_000_003 + int(number)


@contextmanager
def server(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server on `settings.live`, whose folder says already what to serve."""
    with TemporaryDirectory(prefix="recsys-serve-") as scratch:
        process = start_background(settings, port=port, scratch=Path(scratch))
        try:
            wait_ready(f"http://127.0.0.1:{port}", process=process, log=Path(scratch) / "log")
            yield process
        finally:
            stop(process)


def kill_a_worker(process: subprocess.Popen[bytes]) -> None:
    """Kill the newest of the processes that answer; the server starts another one."""
    psutil.Process(process.pid).children(recursive=True)[-1].kill()


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the server and its workers, which are no process group: each worker has one of its own."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        each.kill()
    psutil.wait_procs(family, timeout=10)


def in_journal(live: Path) -> Counter[str]:
    """How often each event's id stands in the journal; lines that tell the same of an event are one, as in `recsys prepare`."""
    return Counter(id for id, *_ in {tuple(line) for line in journal_lines(live)})


def journal_lines(live: Path) -> list[list[Any]]:
    """What the lines of events say, but for when they were received."""
    paths = (live / "journal").glob("events/*/*.posted.ndjson")
    records = (json.loads(line) for path in paths for line in path.read_text().splitlines())
    return [[each[name] for name in ("id", "user_id", "item_id", "time_ms", "event")] for each in records]


def in_state(settings: Settings) -> Counter[str]:
    """How often each event's id stands in the state."""

    async def read() -> Counter[str]:
        store = open_store(settings)
        lives = [await store.recent(f"u{user}") for user in range(USERS)]
        await store.close()
        return Counter(each.id for live in lives for each in live.events)

    return asyncio.run(read())


def crash(settings: Settings, *, posts: int, worker_kills: int) -> tuple[Poster, Counter[str], Counter[str]]:
    """Post so many events, kill workers meanwhile and then the whole server; what journal and state hold after a restart."""
    port = free_port()
    poster = Poster(port)
    with server(settings, port) as process:
        poster.start()
        for number in range(1, worker_kills + 1):
            _wait(poster, posts * number // (worker_kills + 1))
            kill_a_worker(process)
        _wait(poster, posts)
        kill_all(process)
        poster.stop()
    with server(settings, port):
        state = in_state(settings)
    return poster, in_journal(settings.live), state


def _wait(poster: Poster, acknowledged: int, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while len(poster.acknowledged) < acknowledged:
        assert time.monotonic() < deadline, f"{len(poster.acknowledged)} of {acknowledged} posts were acknowledged"
        time.sleep(0.005)


def measure(bundle: Path, state: str, posts: int, workers: int, worker_kills: int) -> dict[str, Any]:
    """One round in a folder of its own."""
    with TemporaryDirectory(prefix="recsys-crash-") as folder:
        settings = Settings(
            live=Path(folder) / "live", state=state, workers=workers, state_timeout_ms=500, max_events=max(500, posts)
        )
        write(Deployment(live=Placed(folder=bundle.absolute())), settings.live)
        began = time.perf_counter()
        poster, journal, kept = crash(settings, posts=posts, worker_kills=worker_kills)
        again = len(journal_lines(settings.live)) - len(journal)
        seconds = time.perf_counter() - began
    acknowledged = set(poster.acknowledged)
    return {
        "store": state.partition(":")[0], "acknowledged": len(acknowledged), "unanswered": poster.unanswered,
        "refused": len(poster.refused), "journal_lacks": len(acknowledged - set(journal)),
        "state_lacks": len(acknowledged - set(kept)), "journal_twice": sum(each > 1 for each in journal.values()),
        "state_twice": sum(each > 1 for each in kept.values()), "lines_again": again, "seconds": round(seconds, 1),
    }  # fmt: skip


def main(posts: int, workers: int, worker_kills: int, bundle: Path | None) -> None:
    with TemporaryDirectory(prefix="recsys-crash-") as scratch:
        bundle = bundle or small_bundle(Path(scratch) / "bundle")
        rounds = [measure(bundle, "sqlite", posts, workers, worker_kills)]
        if shutil.which("redis-server"):
            with running_redis(Path(scratch) / "redis") as server:
                rounds.append(measure(bundle, server.url, posts, workers, worker_kills))
    title = f"{posts:,} posts, {workers} workers, {worker_kills} of them killed one by one, then all at once"
    rows = [[name, *(str(each[name]) for each in rounds)] for name in list(rounds[0])[1:]]
    report(
        "crash",
        title,
        ["what", *(each["store"] for each in rounds)],
        rows,
        {"posts": posts, "workers": workers, "rounds": rounds},
    )
    if any(each[name] for each in rounds for name in each if name.endswith(("_lacks", "_twice"))):
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--posts", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5, help="of single workers, along the way")
    parser.add_argument("--bundle", type=Path, help="the bundle that is served; left out: a small one")
    asked = parser.parse_args()
    main(asked.posts, asked.workers, asked.kills, asked.bundle)
