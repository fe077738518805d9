"""What must hold for every log: order, positions, no look into the future, the k-core, bytes that do not hang on threads."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data import Data
from recsys.data.build import build
from recsys.data.rows import in_order
from recsys.data.splits import LeaveOneOut
from recsys.data.timeline import positions
from recsys.dataset import Dataset
from recsys.simulate import Simulation, simulate

T0 = 1_700_000_000
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans()), max_size=30)  # user, time, in_history


def frame(rows: list[tuple[int, int, bool]]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "time_ms": pl.Int64, "in_history": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))


@settings(deadline=None)
@given(rows=ROWS, ties=st.sampled_from(["file_order", "simultaneous"]))
def test_position_counts_the_timeline_events_before(rows: list[tuple[int, int, bool]], ties: str) -> None:
    found = positions(in_order(frame(rows)), ties=ties)
    assert found.select("user", "time_ms", "row").rows() == sorted((u, t, i) for i, (u, t, _) in enumerate(rows))
    for row, user, time, position in found.select("row", "user", "time_ms", "position").iter_rows():
        seen = [
            i for i, (u, t, kept) in enumerate(rows)
            if kept and u == user and (t < time or (ties == "file_order" and t == time and i < row))
        ]  # fmt: skip
        assert position == len(seen)


@settings(deadline=None)
@given(rows=ROWS)
def test_leave_one_out_tests_the_last_event_and_validates_the_one_before(rows: list[tuple[int, int, bool]]) -> None:
    found = LeaveOneOut()(in_order(frame(rows)).lazy()).collect()
    for _, user in found.group_by("user"):
        splits = user.filter("in_history")["split"].to_list()
        assert splits == ([0] * len(splits) if len(splits) < 3 else [0] * (len(splits) - 2) + [1, 2])
        assert user["split"].is_sorted()


EVENT = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 60), st.integers(0, 1))


def log(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["u", "i", "t", "click"], orient="row").with_columns(
        pl.format("user {}", "u").alias("u"), pl.format("item {}", "i").alias("i"), pl.col("t") + T0
    )


def moment(seconds: int) -> str:
    return f"2023-11-14T22:13:{20 + seconds:02d}Z" if seconds < 40 else f"2023-11-14T22:14:{seconds - 40:02d}Z"  # T0 + seconds


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(EVENT, max_size=25),
    future=st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(61, 90), st.integers(0, 1)),
    ties=st.sampled_from(["file_order", "simultaneous"]),
)
def test_a_later_event_changes_no_earlier_example(
    examples_of: Callable[[Dataset], pl.DataFrame], rows: list[Any], future: Any, ties: str
) -> None:
    always = [(9, 0, 0, 1), (9, 1, 30, 1), (9, 2, 50, 1)]  # keeps every split from being empty
    data = Data.model_validate(
        {
            "events": {
                "path": "log.parquet", "user": "u", "item": "i", "time": "t", "history": "click = 1",
                "labels": {"click": "click"}, "context": {"half": "t % 2"}, "ties": ties,
            },
            "split": {"kind": "time", "valid_from": moment(25), "test_from": moment(45)},
            "filters": {"max_bad_share": 1},
        }
    )  # fmt: skip
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, events in (("before", [*always, *rows]), ("after", [*always, *rows, future])):
            raw = Path(folder) / name
            raw.mkdir()
            log(events).write_parquet(raw / "log.parquet")
            build(data, raw, raw / "dataset")
            found.append(examples_of(Dataset(raw / "dataset")).drop("context_half"))
    before, after = found
    assert len(after) == len(before) + 1
    assert after.filter(pl.col("time_ms") <= (T0 + 60) * 1000).equals(before)


def shuffled_parts(folder: Path, copy: Path) -> None:
    """The same events, every part in another row order and under other names."""
    for number, file in enumerate(sorted((folder / "events").rglob("*.parquet"), reverse=True)):
        target = copy / "events" / f"x{number}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        pl.read_parquet(file).sample(fraction=1, shuffle=True, seed=number).write_parquet(target)
    for name in ("users.parquet", "items.parquet"):
        (copy / name).write_bytes((folder / name).read_bytes())


DEMO = {
    "events": {
        "path": "events", "user": "user_id", "item": "item_id", "time": "time_ms", "time_unit": "ms", "history": "click = 1",
        "labels": {"click": "click", "buy": "purchase"}, "propensity": "propensity", "slot": "slot", "ties": "simultaneous",
        "context": {"hour": "FLOOR(time_ms / 3600000) % 24"},
    },
    "users": {"path": "users.parquet", "id": "user_id", "features": {"country": "country"}},
    "items": {"path": "items.parquet", "id": "item_id", "title": "title", "features": {"brand": "brand", "tags": "tags"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "raw"
    simulate(Simulation(users=80, items=100, events=20_000, days=4), folder)
    return folder


def test_the_folder_of_daily_partitions_is_read_whole(simulated: Path, tmp_path: Path) -> None:
    manifest = build(Data.model_validate(DEMO), simulated, tmp_path / "dataset")
    logged = pl.read_parquet(str(simulated / "events" / "**" / "*.parquet"), hive_partitioning=False)
    assert manifest["report"]["rows_read"] == len(logged) == 20_000
    assert manifest["report"]["rows_quarantined"] == logged.is_duplicated().sum()
    clicks = logged["click"].sum()
    assert manifest["report"]["timeline_events"] == clicks
    data = Dataset(tmp_path / "dataset")
    assert sorted(set(data.vocabulary("context", "hour"))) == sorted({str(hour) for hour in range(24)})
    assert data.examples["slot"].min() == 0
    assert data.examples["propensity"].min() > 0


def test_the_layout_of_the_files_does_not_matter_where_no_time_is_shared(
    simulated: Path, tmp_path: Path, examples_of: Callable[[Dataset], pl.DataFrame]
) -> None:
    shuffled_parts(simulated, tmp_path / "copy")
    found = []
    for number, raw in enumerate((simulated, tmp_path / "copy")):
        build(Data.model_validate(DEMO), raw, tmp_path / f"dataset{number}")
        found.append(examples_of(Dataset(tmp_path / f"dataset{number}")))
    key = ["user", "time_ms", "slot"]  # slots of a page share their time, so their order follows the file
    one, other = (
        rows.with_columns(pl.col("history").list.sort()).sort(key) for rows in found
    )  # clicks of one page may change places in a timeline
    assert one.equals(other)


def test_the_bytes_do_not_hang_on_the_number_of_threads(simulated: Path, tmp_path: Path) -> None:
    code = (
        "import sys, json; from pathlib import Path; from recsys.data import Data; from recsys.data.build import build;"
        "print(build(Data.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))['fingerprint'])"
    )
    prints = set()
    for threads in ("1", "4"):
        command = [sys.executable, "-c", code, json.dumps(DEMO), str(simulated), str(tmp_path / threads)]
        done = subprocess.run(
            command, env={**os.environ, "POLARS_MAX_THREADS": threads}, capture_output=True, text=True, check=True
        )
        prints.add(done.stdout.strip())
    prints.add(build(Data.model_validate(DEMO), simulated, tmp_path / "here")["fingerprint"])
    assert len(prints) == 1


def test_parts_are_read_in_order_of_their_numbers(write: Callable[..., Path], prepare: Callable[..., Dataset]) -> None:
    for number in (10, 9, 1):
        write(f"log/day=1/part-{number}.parquet", pl.DataFrame({"u": ["x"], "i": [number]}))
    write("log/_SUCCESS", "")
    write("log/_delta_log/0.json", "{}")
    data = prepare({"path": "log", "user": "u", "item": "i"}, split={"kind": "leave_one_out"})
    assert [data.item_ids[i] for i in data.item_E] == ["1", "9", "10"]
