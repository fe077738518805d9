"""A real server over HTTP: answers, refusals, health, metrics, and what its processes hold."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from tiny_bundle import NUM_CANDIDATES

from recsys.errors import InputError
from serving.bundle import Bundle
from serving.client import ask
from serving.edge import MAX_BODY_BYTES
from serving.recommend import Query, recommend
from serving.run import free_port, running_service, serve, stop, wait_ready


@pytest.fixture(scope="module")
def url(bundle_folder: Path) -> Iterator[str]:
    with running_service(bundle_folder) as url:
        yield url


def refusal(url: str, body: object = None, **options: str) -> tuple[int, str]:
    """Status and sentence of a request that fails. A body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    content_type = options.get("content_type", "application/json")
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(url + options.get("path", "/recommend"), data, {"Content-Type": content_type}), timeout=10)
    with caught.value as error:
        answer = json.load(error)
    assert list(answer) == ["error"]
    return error.code, answer["error"]


@pytest.mark.parametrize(
    "query",
    [
        {"user_id": "user-3"},
        {"user_id": "user-3", "k": NUM_CANDIDATES, "filter_seen": False},
        {"history": ["item-3", "gone"], "exclude": ["item-1"], "k": 7},
    ],
)
def test_served_as_computed(url: str, bundle_folder: Path, query: dict) -> None:
    answer = ask(url, **query)
    assert answer == recommend(Bundle.load(bundle_folder), Query(**query)).model_dump()
    assert len(answer["items"]) == query.get("k", 10)


def test_exclusions_hold(url: str) -> None:
    first = [item["item_id"] for item in ask(url, user_id="user-5", k=10)["items"]]
    second = [item["item_id"] for item in ask(url, user_id="user-5", k=10, exclude=first)["items"]]
    assert len(set(second)) == 10
    assert not set(first) & set(second)


def test_many_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(url, user_id=f"user-{number % 12}"), range(96)))
    assert answers == [ask(url, user_id=f"user-{number}") for number in range(12)] * 8


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"user_id": "nobody"}, 404, "user_id 'nobody' is not in this bundle: send their item ids as `history`"),
        ({"history": []}, 400, "history is []: send at least one item id, or a `user_id`"),
        ({"k": 3}, 400, "neither of `user_id` and `history` given"),
        ({"user_id": "user-1", "history": ["item-1"]}, 400, "both of `user_id` and `history` given"),
        ({"user_id": "user-1", "k": 0}, 400, "k is 0: input should be greater than or equal to 1"),
        ({"user_id": "user-1", "k": 10**9}, 400, "k is 1000000000: ask for 1 to 20"),
        ({"user_id": "user-1", "k": 10**30}, 400, "ask for 1 to 20"),
        ({"user_id": "user-1", "k": "3"}, 400, "k is '3': input should be a valid integer"),
        ({"user_id": 1}, 400, "user_id is 1: input should be a valid string"),
        ({"history": ["item-1", 7]}, 400, "history[1] is 7: input should be a valid string"),
        ({"user_id": "user-1", "exclude": [None]}, 400, "exclude[0] is None: input should be a valid string"),
        ({"history": ["gone", "lost"]}, 400, "history is ['gone', 'lost']: this bundle has none of these items"),
        ({"user_id": "user-1", "usr": 1}, 400, "unknown field 'usr': the fields are user_id, history, k,"),
        ({"user_id": "user-1", "context": {"hour": "1"}}, 400, "context has an unknown feature 'hour'"),
        ({"history": ["i"] * 10_001}, 400, "history is ['i', "),
        ([1], 400, "body is [1]: input should be an object"),
        (b"{oops", 400, "body is not JSON"),
        (b"", 400, "body is not JSON"),
        (b"\xff\xfe", 400, "body is not JSON"),
        (b"[" * 100_000, 400, "body is not JSON"),
        (b" " * (MAX_BODY_BYTES + 1), 413, "body is larger than 1000000 bytes"),
        (b" " * (3 * MAX_BODY_BYTES), 413, "body is larger than 1000000 bytes"),
    ],
)
def test_a_bad_query_gets_one_sentence(url: str, body: object, status: int, sentence: str) -> None:
    code, answer = refusal(url, body)
    assert code == status
    assert sentence in answer
    assert "\n" not in answer
    assert len(answer) < 250


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", "application/vnd.bentoml+pickle"])
def test_only_json_is_read(url: str, content_type: str) -> None:
    status, sentence = refusal(url, {"user_id": "user-1"}, content_type=content_type)
    assert status == 415
    assert sentence.endswith("send application/json")


def test_other_paths_and_methods_are_refused_in_the_same_shape(url: str) -> None:
    assert refusal(url, path="/recommendations")[0] == 404
    status, sentence = refusal(url)  # no body: GET /recommend
    assert status == 405
    assert sentence.startswith("GET /recommend gives 405 Method Not Allowed: the routes are POST /recommend")


def test_client_raises_the_servers_sentence(url: str) -> None:
    with pytest.raises(InputError, match=r"^user_id 'nobody' is not in this bundle"):
        ask(url, user_id="nobody")
    with pytest.raises(InputError, match=r"does not answer .*: start it with `recsys serve`"):
        ask(f"http://127.0.0.1:{free_port()}", user_id="user-1")


def test_health_names_the_bundle(url: str, bundle_folder: Path) -> None:
    version = json.loads((bundle_folder / "manifest.json").read_text())["fingerprint"]
    with urlopen(f"{url}/healthz") as response:
        assert json.load(response) == {"status": "ok", "model": "tiny", "version": version}
    with urlopen(f"{url}/readyz") as response:
        assert response.status == 200


def test_metrics_count_requests(url: str) -> None:
    def count(status: int) -> float:
        with urlopen(f"{url}/metrics") as response:
            lines = response.read().decode().splitlines()
        labels = ("bentoml_service_request_total{", 'endpoint="/recommend"', f'http_response_code="{status}"')
        return sum(float(line.split()[-1]) for line in lines if all(label in line for label in labels))

    before = count(200), count(400)
    ask(url, user_id="user-1")
    ask(url, user_id="user-2")
    refusal(url, {"user_id": "user-1", "k": 0})
    assert (count(200), count(400)) == (before[0] + 2, before[1] + 1)


def test_openapi_describes_the_query(url: str) -> None:
    with urlopen(f"{url}/docs.json") as response:
        page = json.load(response)
    text = json.dumps(page["paths"]["/recommend"]) + json.dumps(page["components"])
    assert all(f'"{name}"' in text for name in Query.model_fields)


def test_no_torch_in_the_servers_processes(url: str) -> None:
    port = url.rsplit(":", 1)[1]
    servers = [child for child in psutil.Process().children() if port in child.cmdline()]
    processes = [process for server in servers for process in (server, *server.children(recursive=True))]
    maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in processes]
    assert sum("onnxruntime" in text for text in maps) >= 1
    assert not any("libtorch" in text or "/torch/" in text for text in maps)


def test_a_port_in_use_is_named(bundle_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} on 127.0.0.1 cannot be used .* pass another --port"):
            serve(bundle_folder, port=port)


def test_a_missing_bundle_or_a_host_name_is_refused_before_anything_starts(bundle_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no bundle"):
        serve(tmp_path)
    with pytest.raises(InputError, match="host 'localhost' is not an IP address"):
        serve(bundle_folder, host="localhost")


def test_ctrl_c_stops_a_foreground_server(bundle_folder: Path) -> None:
    """The command becomes the server: an interrupt of its process group leaves no process and no traceback."""
    port = free_port()
    code = f"from pathlib import Path; from serving.run import serve; serve(Path({str(bundle_folder)!r}), port={port})"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        wait_ready(f"http://127.0.0.1:{port}", process=process)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not any(worker.is_running() for worker in workers)
    assert "Traceback" not in output


def test_bare_bentoml_serve_listens_on_this_machine_only(bundle_folder: Path, tmp_path: Path) -> None:
    """`bentoml serve` as its own documentation shows it, where BentoML's default would be every interface."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "serving.service:Recommender", "--port", str(port)]
    environment = os.environ | {
        "RECSYS_BUNDLE": str(bundle_folder),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(tmp_path),
    }
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=server, log=tmp_path / "log")
        family = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))]
        listening = {each.laddr.ip for each in psutil.net_connections("tcp") if each.pid in family and each.laddr.port == port}
        assert listening == {"127.0.0.1"}
        assert len(ask(f"http://127.0.0.1:{port}", user_id="user-1", k=3)["items"]) == 3
    finally:
        stop(server)
