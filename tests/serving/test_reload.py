"""A real server whose models change while requests run: none fails, and every process follows."""

import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny_bundle import build_bundle

from recsys.artefact import MANIFEST
from serving.models import admin
from serving.models.deployment import follow_folder
from serving.run import free_port, running_service, start_background, stop, wait_ready
from serving.settings import Settings

Answers = list[tuple[int, str, str]]  # status, version, arm


def export(source: Path, number: int) -> str:
    build_bundle(source, value={"click": 1.0 + number})
    return str(json.loads((source / MANIFEST).read_text())["fingerprint"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reload") / "bundle"
    export(folder, 0)
    return folder


@pytest.fixture(scope="module")
def live(source: Path) -> Path:
    return source.with_name("live")


@pytest.fixture(scope="module")
def url(source: Path, live: Path) -> Iterator[str]:
    """Two worker processes, which the kernel gives connections to as it likes."""
    with running_service(source, live=live, workers=2) as url:
        yield url


def request(url: str, connection: http.client.HTTPConnection | None = None, **query: object) -> tuple[int, str, str]:
    """On a connection of its own, if none is given, so that either process may answer."""
    to = connection or http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    to.request("POST", "/recommend", json.dumps({"k": 3, **query}), {"Content-Type": "application/json"})
    response = to.getresponse()
    body = json.loads(response.read())
    if connection is None:
        to.close()
    return response.status, body.get("version", ""), body.get("arm", "")


def versions_now(url: str) -> set[str]:
    return {request(url, user_id="user-1")[1] for _ in range(16)}


def until_all_answer(url: str, version: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while versions_now(url) != {version}:
        assert time.monotonic() < deadline, f"{versions_now(url)} instead of {version}"


@contextmanager
def under_load(url: str, clients: int = 2) -> Iterator[Answers]:
    answers: Answers = []
    stopped = threading.Event()

    def ask_on() -> None:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        while not stopped.is_set():
            try:
                answers.append(request(url, connection, user_id=f"user-{len(answers) % 12}"))
            except OSError as error:
                answers.append((0, str(error), ""))
        connection.close()

    threads = [threading.Thread(target=ask_on) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_no_request_fails_while_bundles_are_exported(url: str, source: Path) -> None:
    [before] = versions_now(url)
    with under_load(url) as answers:
        exported = []
        for number in range(1, 4):
            exported.append(export(source, number))
            until_all_answer(url, exported[-1])
    assert Counter(status for status, *_ in answers) == {200: len(answers)}
    assert len(answers) > 100
    seen = {version for _, version, _ in answers}
    assert {before} < seen <= {before, *exported}  # the last one may come too late for this load
    assert answers[-1][1] == exported[-1]


def test_a_broken_bundle_is_refused_by_every_process(url: str, source: Path) -> None:
    good = export(source, 10)
    until_all_answer(url, good)
    with under_load(url) as answers:
        (source / "users.arrow").write_bytes(b"")  # as a full disk leaves it
        time.sleep(1.5)
    assert {(status, version) for status, version, _ in answers} == {(200, good)}
    mended = export(source, 11)
    until_all_answer(url, mended)


def test_rollback_canary_and_pins_reach_every_process(url: str, source: Path, live: Path) -> None:
    first = export(source, 20)
    until_all_answer(url, first)
    second = export(source, 21)
    until_all_answer(url, second)
    assert request(url, user_id="user-1", version="previous") == (200, first, "pinned")
    assert request(url, user_id="user-1", version=second) == (200, second, "pinned")
    assert request(url, user_id="user-1", version="0" * 16)[0] == 400
    with under_load(url) as answers:
        admin.rollback(live)
        until_all_answer(url, first)
        admin.set_canary(live, second, 0.3)
        wait_for_a_canary(url)
    assert Counter(status for status, *_ in answers) == {200: len(answers)}
    arms = {f"guest-{number}": request(url, user_id=f"guest-{number}")[1:] for number in range(300)}
    assert set(arms.values()) == {(first, "live"), (second, "canary")}
    assert abs(sum(arm == "canary" for _, arm in arms.values()) / len(arms) - 0.3) < 0.12
    again = {user: request(url, user_id=user)[1:] for user in arms}
    assert again == arms, "both processes give a user the same arm"
    admin.promote_canary(live)
    until_all_answer(url, second)


def wait_for_a_canary(url: str, timeout_s: float = 20) -> None:
    """Until so many connections in a row know it that both processes were among them."""
    deadline = time.monotonic() + timeout_s
    while {request(url, user_id="user-1", version="canary")[0] for _ in range(64)} != {200}:
        assert time.monotonic() < deadline


def test_what_was_begun_is_answered_when_the_server_is_told_to_stop(tmp_path: Path) -> None:
    """A body that is still on its way when SIGTERM comes is a request in flight."""
    settings = Settings(live=tmp_path / "live")
    follow_folder(build_bundle(tmp_path / "bundle"), settings.live)
    port = free_port()
    server = start_background(settings, port=port, scratch=tmp_path)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=server, log=tmp_path / "log")
        body = b'{"user_id": "user-1", "k": 3}'
        head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head + body[:10])
            time.sleep(0.5)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert server.poll() is None
            connection.sendall(body[10:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert server.wait(20) == 0
    finally:
        stop(server)


def test_a_server_that_is_killed_comes_back_with_what_it_had(tmp_path: Path) -> None:
    """The folder that bundles were exported to is gone meanwhile: the server has copies of its own."""
    source, live = tmp_path / "bundle", tmp_path / "live"
    first = export(source, 0)
    settings = Settings(live=live)
    follow_folder(source, live)

    def started(then: Callable[[str], None]) -> None:
        port = free_port()
        server = start_background(settings, port=port, scratch=tmp_path)
        try:
            wait_ready(f"http://127.0.0.1:{port}", process=server, log=tmp_path / "log")
            then(f"http://127.0.0.1:{port}")
        finally:
            server.send_signal(signal.SIGKILL)
            stop(server)

    started(lambda url: until_all_answer(url, first))
    shutil.rmtree(source)
    started(lambda url: until_all_answer(url, first))
