"""The HTTP side of a real server: every refusal is one sentence in one shape, and the document says what the routes do."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from tiny_bundle import build_bundle
from wire import ask_app, exchange, own_endpoint, send

from serving.api.app import make_app
from serving.api.body import DRAINED_BODIES
from serving.api.routes import ROUTES
from serving.journal.journal import JournalDownError
from serving.run import running_service
from serving.schema import Query

MAX_BODY = 60_000


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with running_service(bundle_folder, max_body_bytes=MAX_BODY, header_timeout_s=0.5, request_timeout_s=1.0) as url:
        yield url


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"k": 3}, 400, "neither of `user_id` and `history` given"),
        ({"user_id": "user-1", "history": ["item-1"]}, 400, "both of `user_id` and `history` given"),
        ({"user_id": "user-1", "k": 0}, 400, "k is 0: input should be greater than or equal to 1"),
        ({"user_id": "user-1", "k": 10**9}, 400, "k is 1000000000: ask for 1 to 20"),
        ({"user_id": "user-1", "k": 10**30}, 400, "ask for 1 to 20"),
        ({"user_id": "user-1", "k": "3"}, 400, "k is '3': input should be a valid integer"),
        ({"user_id": 1}, 400, "user_id is 1: input should be a valid string"),
        ({"history": ["item-1", 7]}, 400, "history[1] is 7: input should be a valid string"),
        ({"user_id": "user-1", "exclude": [None]}, 400, "exclude[0] is None: input should be a valid string"),
        ({"user_id": "user-1", "usr": 1}, 400, "unknown field 'usr': the fields are user_id, history, "),
        ({"user_id": "user-1", "context": {"hour": "1"}}, 400, "context has an unknown feature 'hour'"),
        ({"user_id": "user-1", "context": {"x\n" * 500: 1}}, 400, "input should be a valid string"),
        ({"user_id": "user-1", "version": "0"}, 400, "version is '0': this server has "),
        ({"history": ["i"] * 10_001}, 400, "history is ['i', "),
        ([1], 400, "body is [1]: input should be an object"),
        (b"{oops", 400, "body is not JSON"),
        (b"", 400, "body is not JSON"),
        (b"\xff\xfe", 400, "body is not JSON"),
        (b'{"user_id": "\\ud800"}', 400, "body is not JSON"),
        (b'{"user_id": "u", "k": NaN}', 400, "k is nan: input should be a valid integer"),
        (b"[" * 10_000, 400, "body is not JSON"),
        (b" " * (MAX_BODY + 1), 413, f"body is larger than {MAX_BODY} bytes"),
        (b" " * (3 * MAX_BODY), 413, f"body is larger than {MAX_BODY} bytes"),
    ],
)
def test_a_bad_body_gets_one_sentence(url: str, body: object, status: int, sentence: str) -> None:
    answer = send(url, "POST", "/recommend", body)
    assert answer.status == status
    assert sentence in answer.error
    assert "\n" not in answer.error
    assert len(answer.error) < 300


def test_a_body_far_beyond_the_limit_ends_the_connection(url: str) -> None:
    head = b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % 10**9
    answer = exchange(url, head, b" " * (DRAINED_BODIES * MAX_BODY))  # more would meet a closed socket
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_arrive_is_not_waited_for(url: str) -> None:
    answer = exchange(url, b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 1 s" in answer


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", "application/vnd.bentoml+pickle"])
def test_only_json_is_read(url: str, content_type: str) -> None:
    answer = send(url, "POST", "/recommend", {"user_id": "user-1"}, Content_Type=content_type)
    assert answer.status == 415
    assert answer.error.endswith("send application/json")


def test_a_packed_body_is_refused(url: str) -> None:
    answer = send(url, "POST", "/recommend", {"user_id": "user-1"}, Content_Encoding="gzip")
    assert (answer.status, answer.error) == (415, "content-encoding is 'gzip': send the body as it is")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/recommend", 405, "POST"),
        ("DELETE", "/info", 405, "GET, HEAD"),
        ("GET", "/users/u1", 405, "DELETE"),
        ("DELETE", "/users/", 404, None),
        ("POST", "/recommendations", 404, None),
        ("GET", "/page/../settings.py", 404, None),
        ("GET", "/page/%2e%2e/settings.py", 404, None),
        ("GET", "//etc/passwd", 404, None),
        ("GET", "/schema.json", 404, None),  # one of BentoML's own routes
        ("GET", "/%00%0a<script>", 404, None),
    ],
)
def test_other_paths_and_methods_are_refused_in_the_same_shape(
    url: str, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = send(url, method, path)
    assert answer.status == status
    assert answer.headers.get("allow") == allow
    assert f"gives {status} " in answer.error
    assert ": the routes are POST /recommend, " in answer.error


def test_head_is_get_without_the_body(url: str) -> None:
    answer = send(url, "HEAD", "/healthz")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) == len(send(url, "GET", "/healthz").body)


def test_admin_routes_are_closed_without_keys(url: str) -> None:
    answer = send(url, "POST", "/admin/rollback", {})
    assert (answer.status, answer.error) == (403, "admin routes are closed: start the server with API keys to open them")


def test_pages_of_other_sites_cannot_post_events(url: str) -> None:
    event = {"events": [{"user_id": "victim", "item_id": "item-1"}]}
    assert send(url, "POST", "/events", event, Origin="http://evil.example").status == 403
    assert send(url, "POST", "/events", event, Origin="null").status == 403
    assert send(url, "POST", "/events", event, Origin=url).status == 200


@pytest.mark.parametrize("user_id", ["plain", "a/b/../c", "ü?#&%", "\x00\n", "🦜" * 250])
def test_any_text_is_a_user_to_forget(url: str, user_id: str) -> None:
    event = {"events": [{"user_id": user_id, "item_id": "item-1"}]}
    assert send(url, "POST", "/events", event).json["accepted"] == 1
    assert send(url, "DELETE", f"/users/{quote(user_id, safe='')}").json == {"user_id": user_id, "events": 1, "flags": []}


@pytest.mark.parametrize("path", ["/users/%ff%fe", "/users/" + "a" * 1001])
def test_a_user_that_is_no_text_is_refused(url: str, path: str) -> None:
    answer = send(url, "DELETE", path)
    assert answer.status == 400
    assert answer.error.startswith("user_id in the path ")


def test_headers_that_do_not_arrive_end_the_connection(url: str) -> None:
    assert exchange(url, b"GET /livez HTTP/1.1\r\nx-slow: ").startswith(b"HTTP/1.1 408 ")
    assert exchange(url).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nx-long: " + b"a" * 200_000, b"GET /" + b"a" * 200_000])
def test_headers_without_an_end_are_refused(url: str, sent: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(12) == b"HTTP/1.1 431"


def test_what_is_not_http_is_told_so(url: str) -> None:
    answer = exchange(url, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'{"error": "this is not HTTP/1.1: send a request line, headers, and a body as long as they say"}')


def test_pipelined_requests_are_answered_in_order(url: str) -> None:
    one = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    two = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = exchange(url, one + two + one + b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200", b"200"]


def test_health_and_info_name_the_bundle(url: str, bundle_folder: Path) -> None:
    manifest = json.loads((bundle_folder / "manifest.json").read_text())
    healthy = {"status": "ok", "model": "tiny", "version": manifest["fingerprint"]}
    assert send(url, "GET", "/healthz").json == send(url, "GET", "/readyz").json == healthy
    found = send(url, "GET", "/info").json
    assert found["lineage"] == manifest["lineage"]
    assert found["models"]["live"]["max_k"] == 20
    assert found["models"]["live"]["category"] == {"colour": ["red", "green", "blue"]}
    assert found["providers"] == ["CPUExecutionProvider"]
    assert found["deployment"] == {"live": manifest["fingerprint"], "previous": None, "canary": None}
    assert str(bundle_folder) not in json.dumps(found)


def test_info_shows_a_formula_and_what_is_wrong_with_the_deployment(tmp_path: Path) -> None:
    bundle, live = build_bundle(tmp_path / "bundle", value="click * (1 + 4 * like)"), tmp_path / "live"
    with running_service(bundle, live=live) as url:
        before = send(url, "GET", "/info").json
        assert before["models"]["live"]["value"] == "click * (1 + 4 * like)"
        (live / "deployment.json").write_text("{")
        deadline = time.monotonic() + 10
        while (found := send(url, "GET", "/info").json)["refused"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "deployment.json cannot be read" in found["refused"]["reason"]
        assert found["deployment"] == before["deployment"]


def test_answers_carry_headers_that_keep_browsers_safe(url: str) -> None:
    for answer in (send(url, "POST", "/recommend", {"user_id": "user-1"}), send(url, "GET", "/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    page = send(url, "GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert send(url, "GET", "/", If_None_Match=page.headers["etag"]).status == 304


def test_the_document_has_every_route_and_field(url: str) -> None:
    document = send(url, "GET", "/docs.json").json
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert found == {(route.method, route.path) for route in ROUTES}
    assert set(document["components"]["schemas"]["Query"]["properties"]) == set(Query.model_fields)
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_the_documents_examples_work_as_printed(url: str) -> None:
    document = send(url, "GET", "/docs.json").json
    for path in ("/recommend", "/events"):
        example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert send(url, "POST", path, example).status == 200


def test_a_bug_shows_nothing_but_its_number(bundle_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(query: Query) -> None:
        raise RuntimeError("secret of the inside")

    with own_endpoint(bundle_folder, tmp_path) as endpoint, caplog.at_level(logging.ERROR):
        endpoint.recommend = broken  # type: ignore[method-assign,assignment]
        answer = asyncio.run(ask_app(make_app(endpoint), "POST", "/recommend", b'{"user_id": "user-1"}'))
    sentence, request_id = answer.error.rsplit(" ", 1)
    assert (answer.status, sentence) == (500, "internal error: tell the server's owner the request id")
    assert request_id in caplog.text
    assert "secret of the inside" in caplog.text


def test_a_server_that_stops_says_so(bundle_folder: Path, tmp_path: Path) -> None:
    with own_endpoint(bundle_folder, tmp_path) as endpoint:
        endpoint.ready = False
        answers = [asyncio.run(ask_app(make_app(endpoint), "GET", path)) for path in ("/readyz", "/livez")]
    assert [answer.status for answer in answers] == [503, 200]
    assert answers[0].headers["retry-after"] == "1"


def test_a_journal_that_cannot_be_written_is_not_the_callers_fault(bundle_folder: Path, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise JournalDownError("No space left on device")

    with own_endpoint(bundle_folder, tmp_path) as endpoint:
        endpoint.journal.events = full  # type: ignore[method-assign,assignment]
        body = b'{"events": [{"user_id": "user-1", "item_id": "item-1"}]}'
        answer = asyncio.run(ask_app(make_app(endpoint), "POST", "/events", body))
    assert (answer.status, answer.error) == (503, "events cannot be stored: try again in a second")
