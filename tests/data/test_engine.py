"""One contract for every engine; then what only engines with other processes can suffer: a killed worker, a stopped caller."""

import hashlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from pydantic import TypeAdapter

from recsys.data.engines import Engine, Pool, Processes, Ray, Threads, engine
from recsys.errors import InputError

ENGINES = {"threads": Threads(), "processes": Processes(workers=2), "ray": Ray(workers=2)}
REMOTE = ["processes", "ray"]
WAIT_SECONDS = 60


@dataclass(frozen=True)
class Task:
    number: int
    folder: Path = Path()


class TwoPartsError(Exception):
    """Like many a library's error, it cannot be unpickled: its arguments are not its message."""

    def __init__(self, one: str, two: str):
        super().__init__(f"{one} and {two}")


def squared_in_reverse(task: Task) -> int:
    """The first task ends last."""
    time.sleep(0.1 * max(0, 3 - task.number))
    return task.number**2


def shard_file(task: Task) -> str:
    """A real piece of work: the task's share of the users, in order, in a file; returns the file's hash."""
    target = task.folder / f"{task.number}.arrow"
    partial = target.with_suffix(f".{os.getpid()}.partial")
    shard = pl.scan_parquet(task.folder / "log.parquet").filter(pl.col("user") % 4 == task.number)
    shard.group_by("user").agg(pl.col("score").sum()).sort("user").collect().write_ipc(partial)
    partial.rename(target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def refused(task: Task) -> int:
    if task.number == 2:
        raise InputError(f"log.csv has no column 'user' (task {task.number}): name it in the config")
    return task.number


def divided(task: Task) -> int:
    return 6 // (task.number - 2)


def in_two_parts(task: Task) -> int:
    raise TwoPartsError("bread", "butter")


def killed_the_first_time(task: Task) -> int:
    """Dies half-way, as if for want of memory: half a file is written, the rename is missing."""
    half = task.folder / f"{task.number}.half"
    if task.number == 3 and not half.exists():
        half.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    (task.folder / f"{task.number}.done").write_text("done")
    return task.number


def killed_each_time(task: Task) -> int:
    if task.number == 1:
        with (task.folder / "attempts").open("a") as file:
            file.write(".")
        os.kill(os.getpid(), signal.SIGKILL)
    return task.number


def polars_threads(task: Task) -> int:
    return pl.thread_pool_size()


def endless(task: Task) -> None:
    (task.folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)


def needs(module: str) -> None:
    """Skip without an optional package, but not where CI must have it."""
    if os.environ.get("CI"):
        importlib.import_module(module)
    else:
        pytest.importorskip(module)


@pytest.fixture(scope="module", params=ENGINES)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Workers that are up; the tests of one engine share them."""
    if request.param == "ray":
        needs("ray")
    with ENGINES[request.param].open() as pool:
        yield pool


def tasks(number: int, folder: Path = Path()) -> list[Task]:
    return [Task(each, folder) for each in range(number)]


def test_results_come_in_the_order_of_the_tasks(pool: Pool) -> None:
    assert pool.map(squared_in_reverse, tasks(5), name="square") == [0, 1, 4, 9, 16]
    assert pool.map(squared_in_reverse, [], name="square") == []


def test_progress_counts_up_to_all_tasks(pool: Pool) -> None:
    seen: list[tuple[str, int, int]] = []
    pool.map(squared_in_reverse, tasks(3), name="square", progress=lambda *report: seen.append(report))
    assert seen == [("square", 1, 3), ("square", 2, 3), ("square", 3, 3)]


def test_every_engine_writes_the_same_bytes(pool: Pool, tmp_path: Path) -> None:
    log = pl.DataFrame({"user": np.arange(4000) % 97, "score": np.arange(4000)})
    hashes = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        log.write_parquet(folder / "log.parquet")
        mapped = pool.map if name == "one" else Threads().map
        hashes.append(mapped(shard_file, tasks(4, folder), name="shards"))
        assert not list(folder.glob("*.partial"))
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == 4


def test_an_input_error_arrives_as_it_was_raised(pool: Pool) -> None:
    with pytest.raises(InputError) as caught:
        pool.map(refused, tasks(4), name="read")
    assert type(caught.value) is InputError
    assert str(caught.value) == "log.csv has no column 'user' (task 2): name it in the config"
    assert caught.value.__cause__ is None
    assert not getattr(caught.value, "__notes__", [])
    assert pool.map(refused, tasks(2), name="read") == [0, 1]  # the pool lives on


def test_another_error_keeps_its_type_and_traceback(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(divided, tasks(4), name="divide")
    told = "".join([*getattr(caught.value, "__notes__", []), *(str(entry) for entry in caught.traceback)])
    assert "in divided" in told or "6 // (task.number - 2)" in told


def test_an_error_that_cannot_be_unpickled_is_still_told(pool: Pool) -> None:
    with pytest.raises((TwoPartsError, RuntimeError), match="bread and butter"):
        pool.map(in_two_parts, tasks(2), name="eat")


@pytest.mark.parametrize("pool", REMOTE, indirect=True)
def test_the_task_of_a_killed_worker_runs_again(pool: Pool, tmp_path: Path) -> None:
    assert pool.map(killed_the_first_time, tasks(8, tmp_path), name="shards") == list(range(8))
    assert (tmp_path / "3.half").exists()
    assert sorted(file.stem for file in tmp_path.glob("*.done")) == [str(number) for number in range(8)]


@pytest.mark.parametrize("pool", REMOTE, indirect=True)
def test_a_task_that_no_worker_survives_is_named(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^shards: every worker on task 2 of 3 was killed .*Task\(number=1"):
        pool.map(killed_each_time, tasks(3, tmp_path), name="shards")
    assert 3 <= len((tmp_path / "attempts").read_text()) <= 4
    assert pool.map(squared_in_reverse, tasks(3), name="square") == [0, 1, 4]


def test_processes_share_the_cores_and_end_with_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 6)
    before = {child.pid for child in multiprocessing.active_children()}
    environment = dict(os.environ)
    with Processes(workers=2).open() as pool:
        assert pool.map(polars_threads, tasks(2), name="threads") == [3, 3]
        assert {child.pid for child in multiprocessing.active_children()} - before
    assert {child.pid for child in multiprocessing.active_children()} == before
    assert dict(os.environ) == environment


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        ("processes", lambda caller: os.killpg(caller.pid, signal.SIGINT)),  # what Ctrl-C does
        ("processes", lambda caller: caller.kill()),
        ("ray", lambda caller: os.killpg(caller.pid, signal.SIGINT)),
    ],
    ids=["processes-interrupted", "processes-killed", "ray-interrupted"],
)
def test_no_process_outlives_its_caller(kind: str, stop: Callable[[subprocess.Popen[bytes]], None], tmp_path: Path) -> None:
    if kind == "ray":
        needs("ray")
    code = f"""
if __name__ == "__main__":
    import signal
    import test_engine as t
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us in the background, deaf to Ctrl-C
    t.ENGINES[{kind!r}].map(t.endless, t.tasks(4, t.Path({str(tmp_path)!r})), name="endless")
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    caller = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        family = psutil.Process(caller.pid).children(recursive=True)
        assert {int(file.stem) for file in tmp_path.glob("*.pid")} <= {process.pid for process in family}
        stop(caller)
        assert caller.wait(WAIT_SECONDS) != 0
        wait_until(lambda: not any(process.is_running() for process in family))
    finally:
        caller.kill()
        caller.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_the_command_line_names_an_engine() -> None:
    assert engine() == Threads()
    assert engine("processes") == Processes(workers=None)
    assert engine("ray", workers=2, address="10.0.0.5:6379") == Ray(workers=2, address="10.0.0.5:6379")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"kind": "spark"}, "--engine spark is unknown: choose one of threads, processes, ray"),
        ({"kind": "threads", "address": "a:1"}, "--address has no use with --engine threads: .* --engine ray"),
        ({"kind": "processes", "address": "x"}, "--address has no use with --engine processes: .* --engine ray"),
        ({"kind": "processes", "workers": 0}, "--workers 0 does not fit --engine processes: .* greater than or equal to 1"),
    ],
)
def test_words_that_fit_no_engine(words: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        engine(**words)  # type: ignore[arg-type]


def test_yaml_names_an_engine() -> None:
    for spec in ENGINES.values():
        assert TypeAdapter(Engine).validate_python(spec.model_dump()) == spec


def test_an_address_where_no_ray_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("ray")
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # whatever the tests before have started
    with pytest.raises(InputError, match=r"no Ray cluster answers at --address 127.0.0.1:1 "):
        Ray(address="127.0.0.1:1").map(squared_in_reverse, tasks(1), name="square")


def test_ray_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'recsys\[ray\]'"):
        Ray().map(squared_in_reverse, tasks(1), name="square")
