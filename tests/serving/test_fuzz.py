"""A few hundred requests that nobody should send; `python -m benchmarks.hostile` sends a hundred thousand."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from wire import exchange, send

from benchmarks.hostile import worker_processes
from benchmarks.hostile_client import SlowClients, attack
from serving.run import running_service


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with running_service(bundle_folder, header_timeout_s=0.5, request_timeout_s=0.5) as url:
        yield url


def test_mutations_and_random_bytes_do_no_harm(url: str) -> None:
    workers = worker_processes(url)
    tally = attack(url, 400, seed=7)
    assert tally.harm == []
    assert tally.total() >= 400
    assert {"200", "400", "403", "404", "405"} <= set(tally.statuses())
    assert worker_processes(url) == workers
    assert send(url, "POST", "/recommend", {"user_id": "user-1"}).status == 200


def test_answers_hold_to_the_document(url: str) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'recsys[verify]'")
    from benchmarks.hostile_schema import from_document

    tally = from_document(url, send(url, "GET", "/docs.json").json, 200, seed=7)
    assert tally.harm == []
    assert {"200", "400", "403"} <= set(tally.statuses())


def test_slow_connections_are_ended(url: str) -> None:
    slow = SlowClients(url, count=20)
    slow.start()
    slow.over.wait(2.5)
    assert send(url, "POST", "/recommend", {"user_id": "user-1"}).status == 200
    slow.over.set()
    slow.join(10)
    assert slow.ended >= 20
    assert slow.held_s < 2


def test_connections_are_bounded(bundle_folder: Path) -> None:
    with running_service(bundle_folder, max_connections=10, header_timeout_s=1) as url, ExitStack() as held:
        parts = urlsplit(url)
        for _ in range(10):
            held.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=5))
        assert exchange(url).startswith(b"HTTP/1.1 503 ")
        held.close()
        time.sleep(0.2)
        assert send(url, "GET", "/livez").status == 200
