"""The admin routes of a real server: what they change is what answers then, in every worker."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_bundle import build_bundle
from wire import Answer, send

from serving.api.keys import add_key
from serving.models.folder import copy_in
from serving.run import running_service


@dataclass(frozen=True)
class Server:
    url: str
    first: str
    second: str
    key: str

    def admin(self, method: str, path: str, body: object = None) -> Answer:
        return send(self.url, method, f"/admin/{path}", body, X_API_Key=self.key)

    def answering(self) -> set[str]:
        """The versions that answer now, after the time that workers may take to follow."""
        time.sleep(1.2)
        return {send(self.url, "GET", "/healthz").json["version"] for _ in range(12)}


@pytest.fixture(scope="module")
def server(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("admin")
    key = add_key(folder / "live", "owner", ["admin", "read"])
    second = copy_in(build_bundle(folder / "second", title=False), folder / "live").version
    with running_service(bundle_folder, live=folder / "live", keys=True, workers=2) as url:
        yield Server(url, send(url, "GET", "/healthz").json["version"], str(second), key)


def test_deploy_and_roll_back(server: Server) -> None:
    deployed = {"live": server.second, "previous": server.first, "canary": None}
    assert server.admin("POST", "deploy", {"version": server.second}).json == deployed
    assert server.answering() == {server.second}
    assert server.admin("GET", "deployment").json == deployed
    assert server.admin("POST", "rollback", {}).json["live"] == server.first
    assert server.answering() == {server.first}
    again = server.admin("POST", "rollback", {})
    assert again.status == 400
    assert "taken back already" in again.error


def test_a_canary_answers_its_share_and_ends(server: Server) -> None:
    changed = server.admin("POST", "canary", {"version": server.second, "share": 0.5}).json
    assert changed["canary"] == {"version": server.second, "share": 0.5}
    time.sleep(1.2)
    arms = [send(server.url, "POST", "/recommend", {"user_id": f"u{n}"}, X_API_Key=server.key).json["arm"] for n in range(40)]
    assert 8 <= arms.count("canary") <= 32
    assert server.admin("POST", "canary", {"version": server.second, "share": 0}).json["canary"] is None


@pytest.mark.parametrize("version", ["0" * 16, "../../etc", "..", "/etc/passwd", "\x00", "live/../x", "a" * 1000])
def test_no_path_comes_from_a_request(server: Server, version: str) -> None:
    for path, body in (("deploy", {"version": version}), ("canary", {"version": version, "share": 0.1})):
        answer = server.admin("POST", path, body)
        assert answer.status == 400
        assert len(answer.error) < 300


@pytest.mark.parametrize("share", [1, 2, -0.1, "0.5", None, True])
def test_a_share_is_a_share(server: Server, share: object) -> None:
    assert server.admin("POST", "canary", {"version": server.second, "share": share}).status == 400
