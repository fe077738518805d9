"""A server that follows an alias of a real MLflow store: promotion, a store that is away, a broken bundle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny_bundle import build_bundle

from pipelines.follow import Follower
from recsys import track
from recsys.artefact import MANIFEST
from recsys.errors import InputError
from serving.client import ask
from serving.models import admin
from serving.models.deployment import read
from serving.models.folder import versions
from serving.run import free_port, wait_ready

ALIAS = "champion"


@dataclass(frozen=True)
class World:
    """A model of its own in a store that the tests share: making one takes seconds."""

    root: Path
    home: Path  # of the store
    model: str

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.home / 'store' / 'mlflow.db'}"

    @property
    def live(self) -> Path:
        return self.root / "live"

    def register(self, number: int, damage: Callable[[Path], object] | None = None) -> tuple[int, str]:
        """A run with a bundle of its own, registered and made the champion: its number and its fingerprint."""
        folder = build_bundle(self.root / "bundle", value={"click": 1.0 + number})
        fingerprint = json.loads((folder / MANIFEST).read_text())["fingerprint"]
        if damage is not None:
            damage(folder)
        with track.start_run(self.model, f"run-{number}", data="d", uri=self.uri) as run:
            run.artefact(folder)
        return track.register(run.run_id, self.model, ALIAS, uri=self.uri), fingerprint

    def point_to(self, number: int) -> None:
        track.set_alias(self.model, ALIAS, number, uri=self.uri)

    def follower(self) -> Follower:
        return Follower(self.live, self.model, ALIAS, uri=self.uri)

    @property
    def told(self) -> dict:
        return json.loads((self.live / "follow.json").read_text())

    def store_away(self) -> None:
        (self.home / "store").rename(self.home / "away")
        (self.home / "store").write_text("not a folder: the store cannot be made anew")

    def store_back(self) -> None:
        (self.home / "store").unlink()
        (self.home / "away").rename(self.home / "store")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def world(tmp_path: Path, home: Path) -> Iterator[World]:
    world = World(tmp_path, home, f"model-{tmp_path.name}")
    yield world
    if (home / "away").exists():
        world.store_back()


def test_what_the_alias_points_to_goes_live(world: World) -> None:
    first_number, first = world.register(0)
    follower = world.follower()
    assert follower.look()
    assert (read(world.live).live.version, read(world.live).previous) == (first, None)
    second_number, second = world.register(1)
    assert follower.look()
    placed = read(world.live)
    assert (placed.live.version, placed.previous and placed.previous.version) == (second, first)
    assert (world.told["number"], world.told["version"], world.told["last_error"]) == (second_number, second, None)
    world.point_to(first_number)
    bundle = track.artefact(track.get_version(world.model, first_number, uri=world.uri).run_id, "bundle", uri=world.uri)
    assert bundle is not None
    shutil.rmtree(bundle)  # what was fetched before is not fetched again
    assert follower.look()
    assert read(world.live).live.version == first


def test_a_rollback_on_the_server_holds_until_the_alias_moves(world: World) -> None:
    _, first = world.register(0)
    world.follower().look()
    world.register(1)
    world.follower().look()
    admin.rollback(world.live)
    assert world.follower().look()
    assert read(world.live).live.version == first
    _, third = world.register(2)
    assert world.follower().look()
    assert read(world.live).live.version == third


def test_a_store_that_is_away_is_told_and_what_there_is_goes_on(world: World) -> None:
    _, first = world.register(0)
    follower = world.follower()
    follower.look()
    success = world.told["last_success"]
    world.store_away()
    assert not follower.look()
    assert "cannot be" in world.told["last_error"]["reason"]
    assert world.told["last_success"] == success
    assert not world.follower().look(), "one that starts without the store"
    assert read(world.live).live.version == first
    world.store_back()
    _, second = world.register(1)
    assert follower.look()
    assert read(world.live).live.version == second
    assert world.told["last_error"] is None


def test_a_broken_bundle_of_the_store_is_refused(world: World) -> None:
    _, first = world.register(0)
    follower = world.follower()
    follower.look()
    world.register(1, damage=lambda folder: (folder / "users.arrow").write_bytes(b""))
    assert not follower.look()
    assert "users.arrow is missing or differs from its manifest" in world.told["last_error"]["reason"]
    assert read(world.live).live.version == first
    assert versions(world.live) == [first]
    _, third = world.register(2)
    assert follower.look()
    assert read(world.live).live.version == third


def test_an_alias_that_is_not_there_is_named(world: World) -> None:
    assert not world.follower().look()
    assert "has no version with the alias 'champion'" in world.told["last_error"]["reason"]


def test_only_the_last_three_fetched_are_kept(world: World) -> None:
    for number in range(5):
        _, last = world.register(number)
        assert world.follower().look()
    assert len(versions(world.live)) == 3
    assert read(world.live).live.version == last
    assert set(world.told["bundles"].values()) == set(versions(world.live))


def command(world: World, port: int) -> list[str]:
    options = ["--model", world.model, "--alias", ALIAS, "--store", world.uri, "--live", str(world.live), "--port", str(port)]
    return [sys.executable, "-m", "pipelines.cli", "serve", *options, "--every", "0.3"]


def until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


def test_the_command_follows_promotions_and_stops_its_server(world: World) -> None:
    _, first = world.register(0)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = world.root / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command(world, port), stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_ready(url, process=process, log=log)
        assert ask(url, user_id="user-1", k=3)["version"] == first
        _, second = world.register(1)
        until(lambda: ask(url, user_id="user-1", k=3)["version"] == second)
        world.store_away()
        until(lambda: world.told["last_error"] is not None)
        assert ask(url, user_id="user-1", k=3)["version"] == second
        family = psutil.Process(process.pid).children(recursive=True)
        loaded = [Path(f"/proc/{each.pid}/maps").read_text() for each in family]
        assert any("onnxruntime" in text for text in loaded)
        assert not any("/torch/" in text for text in loaded)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) in (0, 130)
        until(lambda: not any(each.is_running() for each in family), 5)
    finally:
        process.kill()
        process.wait()
    assert f"{url}/recommend" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_the_command_ends_with_the_status_of_its_server_and_without_a_store_serves_what_it_has(world: World) -> None:
    _, first = world.register(0)
    assert world.follower().look()
    world.store_away()
    port = free_port()
    with (world.root / "log").open("wb") as output:
        process = subprocess.Popen(command(world, port), stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process=process, log=world.root / "log")
        assert ask(f"http://127.0.0.1:{port}", user_id="user-1", k=3)["version"] == first
        [server] = psutil.Process(process.pid).children()
        server.kill()
        assert process.wait(20) not in (0, None)
    finally:
        process.kill()
        process.wait()


def test_the_command_without_store_and_without_anything_fetched_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    world = World(tmp_path, tmp_path, "shop")
    done = subprocess.run(command(world, free_port()), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "error: The MLflow store" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(InputError):
        read(world.live)
