"""API keys: what is kept of them, whom a server lets in, and that a revoked key ends."""

import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner
from wire import Answer, send

from pipelines.cli import app
from recsys.errors import InputError
from serving.api.keys import KEYS_FILE, MAX_KEYS, Keys, add_key, read_keys, revoke_key
from serving.run import running_service

QUERY = {"user_id": "user-1", "k": 3}
EVENT = {"events": [{"user_id": "secret-user", "item_id": "item-1"}]}


@dataclass(frozen=True)
class Server:
    url: str
    live: Path
    tokens: dict[str, str]

    def ask(self, method: str, path: str, body: object, name: str) -> Answer:
        return send(self.url, method, path, body, Authorization=f"Bearer {self.tokens[name]}")


@pytest.fixture(scope="module")
def server(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, a key for each scope."""
    live = tmp_path_factory.mktemp("auth") / "live"
    tokens = {scope: add_key(live, scope, [scope]) for scope in ("read", "write", "admin")}
    with running_service(bundle_folder, live=live, keys=True, workers=2) as url:
        yield Server(url, live, tokens)


def test_only_a_hash_is_kept_and_only_for_the_owner(tmp_path: Path) -> None:
    token = add_key(tmp_path, "shop", ["read"])
    path = tmp_path / KEYS_FILE
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 4 + 43  # 256 bits in base 64
    assert Keys(tmp_path).find(token.encode()) == read_keys(tmp_path)[0]
    assert Keys(tmp_path).find(token[:-1].encode()) is None


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 65, "a\n"])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="use up to 64 letters"):
        add_key(tmp_path, name, ["read"])


def test_a_name_is_given_once_and_keys_are_few(tmp_path: Path) -> None:
    add_key(tmp_path, "shop", ["read"])
    with pytest.raises(InputError, match="there is a key 'shop'"):
        add_key(tmp_path, "shop", ["read"])
    with pytest.raises(InputError, match=r"there is no key 'mall' .* the keys are shop"):
        revoke_key(tmp_path, "mall")
    with pytest.raises(InputError, match="has no scope"):
        add_key(tmp_path, "none", [])
    for number in range(MAX_KEYS - 1):
        add_key(tmp_path, f"n{number}", ["read"])
    with pytest.raises(InputError, match=f"there are {MAX_KEYS} keys"):
        add_key(tmp_path, "more", ["read"])


def test_an_unreadable_file_lets_nobody_in(tmp_path: Path) -> None:
    token = add_key(tmp_path, "shop", ["read"])
    (tmp_path / KEYS_FILE).write_text("{")
    assert Keys(tmp_path).find(token.encode()) is None
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer rsk_guess"}, {"X_API_Key": ""}, {"Authorization": "Basic eDp5"}]
)
def test_nobody_else_gets_in(server: Server, headers: dict[str, str]) -> None:
    answer = send(server.url, "POST", "/recommend", QUERY, **headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "API key" in answer.error


def test_a_key_opens_what_its_scope_names(server: Server) -> None:
    routes = {
        "read": ("POST", "/recommend", QUERY), "write": ("POST", "/events", EVENT), "admin": ("GET", "/admin/deployment", None),
    }  # fmt: skip
    for name in routes:
        for scope, (method, path, body) in routes.items():
            answer = server.ask(method, path, body, name)
            assert answer.status == (200 if name == scope else 403)
            if name != scope:
                assert answer.error == f"this key has the scope {name}: use a key with the scope {scope}"


def test_both_headers_are_read(server: Server) -> None:
    assert send(server.url, "GET", "/info", X_API_Key=server.tokens["read"]).status == 200
    assert send(server.url, "GET", "/info", authorization=f"bearer {server.tokens['read']}").status == 200


def test_what_everybody_may_see_needs_no_key(server: Server) -> None:
    for path in ("/", "/healthz", "/livez", "/readyz", "/docs.json"):
        assert send(server.url, "GET", path).status == 200
    assert send(server.url, "GET", "/metrics").status == 401


def test_a_revoked_key_ends_within_a_second_in_every_worker(server: Server) -> None:
    token = add_key(server.live, "brief", ["read"])
    time.sleep(1)
    assert all(send(server.url, "GET", "/info", X_API_Key=token).status == 200 for _ in range(20))
    revoke_key(server.live, "brief")
    time.sleep(1)
    assert all(send(server.url, "GET", "/info", X_API_Key=token).status == 401 for _ in range(20))


def test_no_secret_and_no_user_is_logged_or_counted(server: Server) -> None:
    server.ask("POST", "/events", EVENT, "write")
    server.ask("DELETE", "/users/secret-user", None, "write")
    server.ask("POST", "/recommend", {"user_id": "secret-user", "k": 0}, "read")
    send(server.url, "POST", "/recommend", b"\x00", Authorization="Bearer rsk_secret-guess")
    numbers = server.ask("GET", "/metrics", None, "read").body.decode()
    log = _log_of(server).read_text()
    for secret in ("secret-user", "secret-guess", *server.tokens.values()):
        assert secret not in numbers
        assert secret not in log


def test_the_commands(tmp_path: Path) -> None:
    live = ["--live", str(tmp_path)]
    runner = CliRunner()
    made = runner.invoke(app, ["keys", "add", "--name", "shop", "--scope", "write", "--scope", "read", "--rate", "5", *live])
    assert made.exit_code == 0
    token = made.stdout.strip()
    found = Keys(tmp_path).find(token.encode())
    assert found is not None
    assert (found.scopes, found.requests_per_s) == (("read", "write"), 5)
    listed = runner.invoke(app, ["keys", "list", "--json", *live])
    assert [key["name"] for key in json.loads(listed.stdout)] == ["shop"]
    assert "sha256" not in listed.stdout
    assert runner.invoke(app, ["keys", "revoke", "shop", *live]).exit_code == 0
    assert read_keys(tmp_path) == ()
    with pytest.raises(InputError, match="--scope is 'all': use read, write, admin"):
        runner.invoke(app, ["keys", "add", "--name", "x", "--scope", "all", *live], catch_exceptions=False)


def _log_of(server: Server) -> Path:
    """The log lies in the scratch folder, which the environment of the server's processes names."""
    import psutil

    port = server.url.rsplit(":", 1)[1]
    [parent] = [child for child in psutil.Process(os.getpid()).children() if port in child.cmdline()]
    return Path(parent.environ()["BENTOML_HOME"]) / "log"
