"""A day that is struck ends as the undisturbed one: some cells of the matrix. All of it is `python -m benchmarks.faults`."""

from collections.abc import Iterator

import pytest

from benchmarks.faults.damage import Damaged
from benchmarks.faults.disk import NoLargeFiles
from benchmarks.faults.fault import Fault, Kill
from benchmarks.faults.matrix import Bench
from benchmarks.faults.snapshots import Snapshots
from benchmarks.faults.warm import warm
from benchmarks.faults.world import THREADS, World


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("faults")
    home = folder / "home"
    with warm(THREADS) as runs:
        world = World(home, f"sqlite:///{home / 'store' / 'mlflow.db'}", warm=runs).make(days=4, users=100, events=5000)
        yield Bench(Snapshots(world, folder / "kept"), world.days[-1]).prepare(["prepare", "train", "export"])


@pytest.mark.parametrize(
    ("step", "fault"),
    [("prepare", Damaged("../2026-01-03/dataset")), ("train", Kill()), ("export", NoLargeFiles(2048))],
    ids=["the dataset of the day before is damaged", "training is killed", "a bundle has no room"],
)
def test_a_day_that_is_struck_ends_as_the_undisturbed_one(bench: Bench, step: str, fault: Fault) -> None:
    cell = bench.cell(fault, step, seed=1)
    assert cell.is_good, cell
