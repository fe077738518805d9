"""Bundles of one process: what is swapped in, refused, kept and asked for by name. No server."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import build_bundle

from recsys.artefact import MANIFEST, file_hash
from recsys.errors import InputError
from serving.models import admin
from serving.models.deployment import DEPLOYMENT_FILE, Deployment, Placed, follow_folder, read, write
from serving.models.folder import versions
from serving.models.models import Models

POLL_S = 0.02


class World:
    """A folder that bundles are exported to, the server's folder, and the models of one process."""

    def __init__(self, root: Path) -> None:
        self.source, self.live = root / "bundle", root / "live"
        self.opened: list[Models] = []

    def export(self, number: int) -> str:
        """A bundle of its own for each number; returns its version."""
        build_bundle(self.source, value={"click": 1.0 + number})
        return str(json.loads((self.source / MANIFEST).read_text())["fingerprint"])

    def open(self) -> Models:
        follow_folder(self.source, self.live)
        self.opened.append(Models(self.live, max_batch=2, poll_s=POLL_S))
        return self.opened[-1]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for models in world.opened:
        models.close()


def until(true: Callable[[], object], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def test_an_export_goes_live_and_the_one_before_is_kept(world: World) -> None:
    first = world.export(0)
    models = world.open()
    begun = models.choose("u", None).bundle
    second = world.export(1)
    until(lambda: models.live.version == second)
    assert begun.version == first, "a request keeps the bundle that it began with"
    assert models.choose("u", "previous").bundle is begun
    third = world.export(2)
    until(lambda: models.live.version == third)
    assert {each: bundle.version for each, bundle in models.held.places.items()} == {"live": third, "previous": second}


def test_another_value_formula_is_another_version(world: World) -> None:
    """Its graphs and tables are the same, its answers are not."""
    assert world.export(0) != world.export(1)
    assert world.export(1) == world.export(1)


def test_an_export_of_what_is_live_changes_nothing(world: World) -> None:
    world.export(0)
    models = world.open()
    before = (world.live / DEPLOYMENT_FILE).read_text()
    held = models.held
    world.export(0)
    time.sleep(10 * POLL_S)
    assert models.held is held
    assert (world.live / DEPLOYMENT_FILE).read_text() == before


def cut_off(bundle: Path) -> None:
    (bundle / "users.arrow").write_bytes((bundle / "users.arrow").read_bytes()[:-100])


def half_copied(bundle: Path) -> None:
    (bundle / "ranking.onnx").unlink()


def of_an_old_format(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(manifest | {"format_version": 1}))


def not_json(bundle: Path) -> None:
    (bundle / MANIFEST).write_text("{")


def rehash(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = file_hash(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def other_answers(bundle: Path) -> None:
    sample = dict(np.load(bundle / "parity.npz"))
    np.savez(bundle / "parity.npz", **(sample | {"ranking_probability": sample["ranking_probability"] + 0.01}))
    rehash(bundle, "parity.npz")


def no_graph(bundle: Path) -> None:
    (bundle / "retrieval.onnx").write_bytes(b"not a graph")
    rehash(bundle, "retrieval.onnx")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_off, "users.arrow is missing or differs from its manifest"),
        (half_copied, "ranking.onnx is missing or differs from its manifest"),
        (of_an_old_format, "has bundle format version 1"),
        (not_json, "is not valid JSON"),
        (other_answers, "does not give the outputs recorded in parity.npz"),
        (no_graph, "INVALID_PROTOBUF"),
    ],
)
def test_a_broken_bundle_is_refused_and_its_mend_goes_live(
    world: World, damage: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "recsys.serving")  # whatever other tests have set for all loggers
    good = world.export(0)
    models = world.open()
    aside = build_bundle(world.source.with_name("aside"), value={"click": 9.0})
    damage(aside)
    shutil.copytree(aside, world.source, dirs_exist_ok=True)  # as `cp -r` onto the folder in use
    for lost in {path.name for path in world.source.iterdir()} - {path.name for path in aside.iterdir()}:
        (world.source / lost).unlink()
    until(lambda: reason in str(models.status["refused"]))
    assert models.live.version == good
    assert read(world.live).live.version == good
    assert sum(reason in record.getMessage() for record in caplog.records) == 1
    assert Models(world.live, max_batch=1).live.version == good, "one that starts meanwhile has the good one"
    mended = world.export(3)
    until(lambda: models.live.version == mended)
    assert models.status["refused"] is None


def test_rollback_holds_until_the_next_export(world: World) -> None:
    first, second = world.export(0), None
    models = world.open()
    second = world.export(1)
    until(lambda: models.live.version == second)
    admin.rollback(world.live)
    until(lambda: models.live.version == first)
    assert models.choose("u", "previous").bundle.version == second
    with pytest.raises(InputError, match=f"version {second} was taken back already"):
        admin.rollback(world.live)
    follow_folder(world.source, world.live)  # the same server, started again
    assert Models(world.live, max_batch=1).live.version == first
    third = world.export(2)
    until(lambda: models.live.version == third)


def test_nothing_to_roll_back_to(world: World) -> None:
    world.export(0)
    world.open()
    with pytest.raises(InputError, match="there is no previous version"):
        admin.rollback(world.live)


def test_deploy_takes_a_version_of_the_models_folder_only(world: World) -> None:
    first = world.export(0)
    models = world.open()
    second = world.export(1)
    until(lambda: models.live.version == second)
    for name in ("../bundle", str(world.source), "0" * 16, "", "."):
        with pytest.raises(InputError, match="the models folder has"):
            admin.deploy(world.live, name)
    admin.deploy(world.live, first)
    until(lambda: models.live.version == first)
    (world.live / "models" / second / "users.arrow").write_bytes(b"")
    with pytest.raises(InputError, match=r"users.arrow is missing or differs"):
        admin.deploy(world.live, second)
    assert read(world.live).live.version == first


def test_a_canary_answers_its_share_until_it_is_promoted(world: World) -> None:
    first = world.export(0)
    models = world.open()
    second = world.export(1)
    until(lambda: models.live.version == second)
    admin.set_canary(world.live, first, 0.25)
    until(lambda: "canary" in models.held.places)
    arms = {user: models.choose(user, None) for user in map(str, range(2000))}
    share = sum(each.arm == "canary" for each in arms.values()) / len(arms)
    assert abs(share - 0.25) < 0.05
    assert {(each.arm, each.bundle.version) for each in arms.values()} == {("canary", first), ("live", second)}
    assert all(models.choose(user, None) == each for user, each in arms.items())
    assert models.choose("u", "canary").arm == "pinned"
    assert models.status["canary"] == {"version": first, "share": 0.25}
    with pytest.raises(InputError, match="that one is live"):
        admin.set_canary(world.live, second, 0.5)
    with pytest.raises(InputError, match="share is 1"):
        admin.set_canary(world.live, first, 1)
    admin.promote_canary(world.live)
    until(lambda: models.live.version == first)
    until(lambda: models.status["canary"] is None)
    with pytest.raises(InputError, match="there is no canary"):
        admin.remove_canary(world.live)


def test_a_version_that_is_not_held_is_refused_with_those_there_are(world: World) -> None:
    version = world.export(0)
    models = world.open()
    assert models.choose("u", version).arm == models.choose("u", "live").arm == "pinned"
    with pytest.raises(InputError, match=rf"version is 'canary': this server has {version} \(live\)"):
        models.choose("u", "canary")


def test_only_some_copies_are_kept(world: World) -> None:
    world.export(0)
    models = world.open()
    for number in range(1, 6):
        version = world.export(number)
        until(lambda version=version: models.live.version == version)
    until(lambda: len(versions(world.live)) == 3)


def test_a_live_version_that_is_lost_gives_way_to_the_previous_one(world: World) -> None:
    first = world.export(0)
    models = world.open()
    second = world.export(1)
    until(lambda: models.live.version == second)
    shutil.rmtree(world.live / "models" / second)
    assert Models(world.live, max_batch=1).live.version == first


def test_an_export_that_did_not_fit_on_the_disk_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start of a process, too, where nothing changes any more that a watcher could see."""
    first = world.export(0)
    world.open().close()
    second = world.export(1)
    monkeypatch.setattr("serving.models.watcher.RETRY_S", 0.05)
    full = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")] * 9)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", raising(full))
        models = world.open()
        assert models.live.version == first
        reason = models.status["refused"]["reason"]
        assert reason.endswith("([Errno 28] No space left on device): free space there, or make it writable")
        assert reason.startswith(f"{world.source} cannot be copied to {world.live / 'models'} ")
    until(lambda: models.live.version == second)
    assert models.status["refused"] is None


def raising(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


def test_a_canary_that_is_lost_does_not_keep_a_process_from_starting(world: World) -> None:
    first = world.export(0)
    models = world.open()
    second = world.export(1)
    until(lambda: models.live.version == second)
    admin.set_canary(world.live, first, 0.5)
    until(lambda: models.held.canary is not None)
    shutil.rmtree(world.live / "models" / first)
    alone = Models(world.live, max_batch=1)
    world.opened.append(alone)
    assert (alone.live.version, alone.held.canary, alone.held.share) == (second, None, 0)
    assert models.held.canary is not None, "who has it in memory goes on with it"


def test_a_deployment_that_cannot_be_read_is_refused(world: World) -> None:
    good = world.export(0)
    models = world.open()
    (world.live / DEPLOYMENT_FILE).write_text("{}")
    until(lambda: "deployment.json cannot be read (live: Field required)" in str(models.status["refused"]))
    assert models.choose("u", None).bundle.version == good
    with pytest.raises(InputError, match="cannot be read"):
        Models(world.live)


def test_a_deployment_written_by_hand_is_taken_in(world: World) -> None:
    version = world.export(0)
    write(Deployment(live=Placed(folder=world.source)), world.live)
    assert Models(world.live, max_batch=1).live.version == version
    assert read(world.live).live == Placed(folder=world.live / "models" / version, version=version)
    assert read(world.live).source == world.source


def test_another_version_than_the_deployment_names_is_refused(world: World) -> None:
    world.export(0)
    write(Deployment(live=Placed(folder=world.source, version="0" * 16)), world.live)
    with pytest.raises(InputError, match=f"where {'0' * 16} should be"):
        Models(world.live)
