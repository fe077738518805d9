"""`recsys forget` in the workspace of a daily run: no day is done again for it, and the next one goes on without the users."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from daily_world import World, day

from pipelines.daily.dataset import fingerprints
from pipelines.forget import days
from pipelines.forget.plan import Plan
from pipelines.forget.run import Request, forget
from recsys.artefact import is_there
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.loop import MODEL_FILE

pytestmark = [pytest.mark.filterwarnings("ignore:Please use DTensor"), pytest.mark.usefixtures("one_group")]

KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.forget import run
from pipelines.forget.run import Request, forget
from recsys.config import load

def move(source, target):  # the first artefact that is put in its place is the last thing that this process does
    os.rename(source, target) if AFTER else None
    os.kill(os.getpid(), signal.SIGKILL)

AFTER = sys.argv[1] == "after"
swap = run._swap
def swapping(workspace, new):
    Path.rename = move
    return swap(workspace, new)
run._swap = swapping
forget(Request(load(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[6:], "dampen", uri=sys.argv[5]))
"""


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory, group: torch.device) -> World:
    """Days 4 and 5 were run; 6 lies in the whole log."""
    world = World.make(tmp_path_factory.mktemp("forget-daily"), days=6)
    world.arrive(1, 2, 3, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.train.distributed.process_group", _joined(group))
        world.run(4)
        world.arrive(5)
        world.run(5)
    return world


@pytest.fixture
def world(two_days: World, tmp_path: Path) -> World:
    shutil.copytree(two_days.folder, tmp_path / "w")
    return World(tmp_path / "w")


def _joined(group: torch.device) -> Callable[[], AbstractContextManager[torch.device]]:
    return lambda: nullcontext(group)


def some(world: World) -> list[str]:
    data = Dataset(world.layout.workspace(day(5)).dataset)
    return [str(data.user_ids[row]) for row in np.flatnonzero(data.train_length_U >= 4)[:3]]


def known(world: World, number: int) -> set[str]:
    return {str(user) for user in Dataset(world.layout.workspace(day(number)).dataset).user_ids}


def test_days_know_their_rewritten_files_and_the_next_one_goes_on_without_the_users(world: World) -> None:
    users, was = some(world), world.state(4).raw
    receipt = forget(Request(world.config(), world.raw, world.layout.root, users, "dampen", uri=world.uri))
    assert [Path(each).name for each in days_of(receipt.left)] == ["2026-01-04"]
    for number in (4, 5):
        assert world.state(number).raw == fingerprints(world.config(), world.raw, day(number))
    assert world.state(4).raw != was
    assert not set(users) & known(world, 5)
    assert world.state(4).status == "done"
    assert not world.state(5).is_done("evaluate")
    assert world.run(4).raw == world.state(4).raw
    assert not list(world.layout.root.glob("days/*.[0-9]"))  # no day was set aside to be done again
    again = world.run(5)  # judged and exported anew; neither prepared nor trained
    assert again.status == "done"
    assert again.detail("export")["version"] is not None
    world.arrive(6)
    after = world.run(6)
    assert (after.mode, after.start) == ("warm", "2026-01-05")
    assert not set(users) & known(world, 6)
    assert world.state(5).raw == fingerprints(world.config(), world.raw, day(5))


def test_a_day_whose_files_changed_before_is_still_done_again(world: World) -> None:
    users, was = some(world), world.state(4).raw
    world.change(4)
    forget(Request(world.config(), world.raw, world.layout.root, users, "dampen", uri=world.uri))
    assert world.state(4).raw == was
    assert world.state(5).raw == fingerprints(world.config(), world.raw, day(5))


def test_a_day_that_was_prepared_and_not_trained_is_prepared_without_the_users(world: World) -> None:
    users = some(world)
    world.arrive(6)
    world.run_until(6, "prepare")
    assert set(users) <= known(world, 6)
    receipt = forget(Request(world.config(), world.raw, world.layout.root, users, "dampen", uri=world.uri))
    assert [Path(each).name for each in days_of(receipt.left)] == ["2026-01-04"]
    after = world.run_until(6, "train")
    assert (after.mode, after.start) == ("warm", "2026-01-05")
    assert not set(users) & known(world, 6)


def test_no_day_is_run_while_users_are_half_forgotten(world: World) -> None:
    """It would go on from data or from a model that has them, and no later step would look at it again."""
    Plan(world.layout.root, ["u 1", "u2"], "dampen").step("day", lambda: "2026-01-05")
    with pytest.raises(InputError, match="recsys forget 'u 1' u2 --method dampen"):
        world.run(5)


def test_purge_deletes_the_other_days(world: World, cli: Cli) -> None:
    users = some(world)
    words = ["--config", world.config_file, "--data", world.raw, "--workspace", world.layout.root, "--store", world.uri]
    done = cli("forget", *users, *map(str, words), "--method", "dampen", "--purge")
    assert not done.failed, done.said
    assert "recsys daily" in done.out + done.said
    assert "--day 2026-01-05" in done.out + done.said
    assert world.layout.days() == [day(5)]
    assert not set(users) & known(world, 5)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_in_the_swap_goes_on_with_the_same_day(world: World, when: str) -> None:
    """Between a folder that was removed and the one that takes its place, and after the first was put there."""
    users = some(world)
    words = [when, world.config_file, world.raw, world.layout.root, world.uri, *users]
    child = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    changed = world.layout.workspace(day(5))
    assert is_there(changed.dataset) == (when == "after")
    assert "swap" not in Plan(world.layout.root, users, "dampen").steps
    receipt = forget(Request(world.config(), world.raw, world.layout.root, users, "dampen", uri=world.uri))
    assert not set(users) & known(world, 5)
    assert (changed.checkpoint("retriever") / MODEL_FILE).is_file()
    assert [Path(each).name for each in days_of(receipt.left)] == ["2026-01-04"]
    assert days.as_recorded(world.config(), world.raw, world.layout) == ["2026-01-04", "2026-01-05"]


def days_of(left: tuple[str, ...]) -> list[str]:
    return [each.split(":")[0] for each in left if "made before, with the users" in each]
