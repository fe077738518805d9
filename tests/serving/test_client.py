"""The Python client against a real server, and against one that fails for a while."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from recsys.errors import InputError
from serving.answers import Recommendations
from serving.api.keys import add_key
from serving.client import Client, ServerError, ask
from serving.run import free_port, running_service
from serving.schema import Event, Query


@pytest.fixture(scope="module")
def client(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    live = tmp_path_factory.mktemp("client")
    key = add_key(live, "all", ["read", "write"])
    with running_service(bundle_folder, live=live, keys=True) as url:
        yield Client(url + "/", api_key=key)


def test_answers_have_their_classes(client: Client) -> None:
    found = client.recommend(user_id="user-1", k=3)
    assert isinstance(found, Recommendations)
    assert len(found.items) == 3
    assert client.recommend(Query(user_id="user-1", k=3)).items == found.items
    assert client.health().version == client.info().version == found.version


def test_an_event_counts_once_and_can_be_forgotten(client: Client) -> None:
    event = Event(user_id="a/ü", item_id="item-1", event="click")
    named = Event(user_id="a/ü", item_id="item-2", id="once")
    assert client.events(event, named).accepted == 2
    again = client.events(event, named)  # the first got another id: it happened twice
    assert (again.accepted, again.duplicates) == (1, 1)
    assert client.forget("a/ü").events == 3


def test_events_of_one_moment_keep_the_order_in_which_they_were_sent(client: Client) -> None:
    """By the client's ids, and by those of the server where a post has none."""
    items = [f"item-{number}" for number in (7, 3, 9, 1, 5, 2, 8, 4)]  # as many as a history shows
    client.events(*(Event(user_id="busy", item_id=item) for item in items))
    bare = json.dumps({"events": [{"user_id": "bare", "item_id": item} for item in items]}).encode()
    headers = {"Content-Type": "application/json", **client._headers}
    with urlopen(Request(f"{client.url}/events", bare, headers), timeout=10) as response:
        assert json.load(response)["accepted"] == len(items)
    for user in ("busy", "bare"):
        explanation = client.recommend(user_id=user, k=1, explain=True).explanation
        assert explanation is not None
        assert [entry.item_id for entry in explanation.history] == items
        assert len({entry.time_ms for entry in explanation.history}) == 1


def test_the_servers_sentence_is_raised(client: Client) -> None:
    with pytest.raises(InputError, match=r"^k is 1000: ask for 1 to 20"):
        client.recommend(user_id="user-1", k=1000)
    with pytest.raises(InputError, match=r"^k is '3': input should be a valid integer"):
        client.recommend(user_id="user-1", k="3")
    with pytest.raises(InputError, match=r"^an API key is needed"):
        Client(client.url).recommend(user_id="user-1")
    with pytest.raises(InputError, match=r"^this API key is not valid"):
        ask(client.url, api_key="rsk_wrong", user_id="user-1")


def test_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: client.recommend(user_id=f"user-{number % 12}").items, range(96)))
    assert answers == [client.recommend(user_id=f"user-{number}").items for number in range(12)] * 8


def test_a_connection_is_used_again(client: Client) -> None:
    client.health()
    before = client._connection().sock
    client.health()
    assert client._connection().sock is before


@pytest.mark.parametrize("url", ["127.0.0.1:3000", "file:///etc/passwd", ""])
def test_an_url_has_to_be_one(url: str) -> None:
    with pytest.raises(InputError, match="give one like http://127"):
        Client(url)


def test_a_server_that_is_away_is_named() -> None:
    with pytest.raises(InputError, match=r"does not answer .*: start it with `recsys serve`"):
        ask(f"http://127.0.0.1:{free_port()}", user_id="user-1")


class Flaky(BaseHTTPRequestHandler):
    """Says what `plan` says, one entry a request: a status, or None to close the connection without a word."""

    protocol_version = "HTTP/1.1"
    plan: list[int | None]
    bodies: list[bytes]

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.plan.pop(0)
        if status is None:
            self.close_connection = True
            return
        body = (
            b'{"error": "wait"}'
            if status >= 400
            else b'{"accepted": 1, "duplicates": 0, "unknown_items": [], "flags": [], "new": 1}'
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@contextmanager
def flaky(*plan: int | None) -> Iterator[tuple[str, type[Flaky]]]:
    handler = type("Planned", (Flaky,), {"plan": list(plan), "bodies": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_events_are_sent_again_with_the_same_id() -> None:
    with flaky(503, None, 429, 200) as (url, handler):
        client = Client(url, retries=3, wait_s=0.01)
        assert client.events(Event(user_id="u", item_id="i")).accepted == 1
        client.close()
    assert len(handler.bodies) == 4
    assert len(set(handler.bodies)) == 1
    assert b'"id":"' in handler.bodies[0]


def test_patience_ends() -> None:
    with flaky(503, 503) as (url, _), pytest.raises(ServerError, match="wait"):
        Client(url, retries=1, wait_s=0.01).recommend(user_id="u")


def test_a_refusal_is_not_tried_again() -> None:
    with flaky(400, 200) as (url, handler), pytest.raises(InputError, match="wait"):
        Client(url, retries=3, wait_s=0.01).recommend(user_id="u")
    assert len(handler.bodies) == 1
