"""A promotion whose MLflow server goes away: one sentence, exit code 2, whole aliases, and a second try that ends it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Cli
from mlflow.tracking import MlflowClient
from mlflow_server import Proxy, Server, cut_at
from promotion_world import World, values

from pipelines.daily.registered import send_again_if_damaged
from pipelines.workspace import Workspace
from recsys import track

CONFIG = "name: {name}\ndata: {{events: {{path: log.csv, user: u, item: i, time: t, columns: {{t: int}}}}}}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def world(server: Server, request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(server.uri, re.sub(r"[^a-z0-9]+", "-", request.node.name).strip("-"), tmp_path / "files")


@pytest.fixture
def promote(cli: Cli, proxy: Proxy, world: World, tmp_path: Path) -> Callable[[], tuple[int, str]]:
    """`recsys promote` by the proxy: the exit code and what it says."""
    config = tmp_path / "promote.yaml"
    config.write_text(CONFIG.format(name=world.model))

    def run() -> tuple[int, str]:
        done = cli("promote", "--config", str(config), "--store", proxy.uri, "--json")
        return done.code, json.loads(done.out)["outcome"] if done.out else done.said

    return run


def give_back_claims(uri: str) -> None:
    """As time does within a minute."""
    client = MlflowClient(uri)
    for each in client.search_experiments(filter_string="name LIKE 'recsys claim/%'"):
        client.delete_experiment(each.experiment_id)


def test_a_server_that_is_gone(server: Server, world: World, proxy: Proxy, promote: Callable[[], tuple[int, str]]) -> None:
    world.add()
    server.kill()
    code, said = promote()
    assert code == 2
    assert f"The MLflow store {proxy.uri} cannot be opened (" in said
    assert "start its server again and run the same command again" in said
    server.start()
    assert promote() == (0, "promoted")


@pytest.mark.parametrize(
    ("call", "number", "silent", "moved"),
    [
        ("download_artifacts", 1, False, False),
        ("set_model_version_tag", 3, True, False),
        ("set_registered_model_alias", 2, False, False),  # that of the champion, after that of the one before
        ("update_model_version", 2, False, True),
    ],
)
def test_a_network_that_is_lost_in_the_middle_promotes_wholly_or_not_at_all(
    world: World, proxy: Proxy, promote: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch,
    call: str, number: int, silent: bool, moved: bool,
) -> None:  # fmt: skip
    world.add(values(0.2))
    assert promote() == (0, "promoted")
    world.add(values(0.25))
    with monkeypatch.context() as patch:
        cut_at(patch, proxy, call, number, silent=silent)
        code, said = promote()
    assert code == 2, said
    assert said.count("error: ") == 1
    assert f"The MLflow store {proxy.uri} answers no more (" in said
    assert said.endswith(": start its server again and run the same command again")
    assert "Traceback" not in said
    assert world.aliases()["champion"] == (2 if moved else 1)
    proxy.mend()
    give_back_claims(world.uri)
    assert promote() == (0, "already" if moved else "promoted")
    assert world.aliases() == {"champion": 2, "previous": 1}


def test_a_copy_that_cannot_be_fetched_is_not_taken_for_damaged(
    world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = track.get_version(world.model, world.add(), uri=proxy.uri)
    with monkeypatch.context() as patch:
        cut_at(patch, proxy, "download_artifacts", 1, silent=False)
        with pytest.raises(track.StoreAwayError, match="answers no more"):
            send_again_if_damaged(Workspace(tmp_path), version, uri=proxy.uri)
    assert track.waiting(proxy.uri) == []
    proxy.mend()
    assert not send_again_if_damaged(Workspace(tmp_path), version, uri=proxy.uri)
