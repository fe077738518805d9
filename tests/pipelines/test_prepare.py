"""`recsys prepare` and `recsys data` on a small shop's log, one folder a day, and what they say."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.progress import BuildProgress
from pipelines.workspace import parts
from recsys.config import load
from recsys.errors import InputError

MONDAY_S = 1_714_953_600  # 2024-05-06 00:00 UTC
CONFIG = """
name: shop
max_history: 10
data:
  events:
    path: log
    columns: {ts: int, stars: int, watched: float}
    user: uid
    item: sku
    time: ts
    time_unit: auto
    arrives: by_folder
    labels: {like: stars >= 4}
  split: {kind: time, valid_share: 0.1, test_share: 0.1}
retriever: {encoder: {kind: sasrec, dim: 8, blocks: 1, heads: 1}, fit: {epochs: 1}}
"""
TARGETS = CONFIG.replace("{like: stars >= 4}", "{watch: {kind: quantile, value: watched}}")
Row = tuple[str, str, int, int, float]  # user, item, seconds since Monday, stars, seconds watched


def day(number: int, users: Iterable[int]) -> list[Row]:
    """Every user has four events a day, an hour apart, and none twice with the same item."""
    return [
        (f"u{user}", f"i{(number * 4 + hour + user) % 40}", (number * 24 + hour) * 3600 + user, hour + 2, 7.0 * user)
        for user in users
        for hour in range(4)
    ]


def write_day(number: int, rows: list[Row]) -> None:
    folder = Path(f"raw/log/day={number}")
    folder.mkdir(parents=True)
    lines = [f"{user},{item},{MONDAY_S + time},{stars},{watched}" for user, item, time, stars, watched in rows]
    (folder / "part.csv").write_text("\n".join(["uid,sku,ts,stars,watched", *lines]) + "\n")


@pytest.fixture
def shop(cli: Callable[..., Any]) -> Callable[..., Any]:
    """`recsys prepare` over a log of five days; further words are passed on."""
    Path("shop.yaml").write_text(CONFIG)
    for number in range(5):
        write_day(number, day(number, range(10)))
    return lambda *words: cli("prepare", "--config", "shop.yaml", "--data", "raw", *words)


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/shop/data_report/quality.json").read_text())
    return found


def assert_self_contained(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert not re.search(r"<(script|link|img|iframe)\b|https?://|@import|url\(", page)


def test_prepare_says_what_became_of_the_rows(shop: Callable[..., Any]) -> None:
    with Path("raw/log/day=4/part.csv").open("a") as file:
        print(f",i1,{MONDAY_S},5,1\nu1,i1,whenever,5,1\nu1,i1,0,5,1\nu0,i16,{MONDAY_S + 96 * 3600},5,99", file=file)
    done = shop("--set", "data.filters.max_bad_share=0.5")
    assert not done.failed
    assert "201 timeline events of 10 users and 29 items" in done.said
    assert "built from scratch: there was no dataset" in done.said
    assert "204 rows read, 3 quarantined" in done.said
    assert "time_unit is s, as the first rows show" in done.said
    assert "quarantined 1: user id is empty" in done.said
    assert "conflicting rows 1: same user, item and time, other values (events.conflicts: keep)" in done.said
    assert "task like: 201 labels, mean 0.502" in done.said  # 2 and 3 stars, 4 and 5 stars, and one more of 5
    assert "since the dataset before" not in done.said
    assert "next: recsys train --config shop.yaml" in done.said
    assert "or: open runs/shop/data_report/report.html" in done.said
    assert "read and validate" not in done.said  # bars are for terminals
    assert_self_contained(Path("runs/shop/data_report/report.html").read_text())
    assert report()["events"] == 201
    assert report()["drift"] is None


def test_a_new_day_is_appended_and_what_moved_is_told(shop: Callable[..., Any], cli: Callable[..., Any]) -> None:
    assert not shop().failed
    late: Row = ("u3", "i39", (4 * 24 + 1) * 3600, 5, 1.0)
    write_day(5, [*day(5, range(20)), late])
    second = shop()
    assert not second.failed
    assert "appended 1 new file to the dataset of" in second.said
    assert "late rows 1, which count from when they arrived" in second.said
    assert "since the dataset before:" in second.said
    assert "users shifted, 10 to 20" in second.said
    (users,) = [row for row in report()["drift"] if row["name"] == "users"]
    assert (users["before"], users["after"], users["verdict"]) == (10, 20, "shifted")
    page = Path("runs/shop/data_report/report.html").read_text()
    assert "Changes since the dataset before" in page
    assert_self_contained(page)
    assert not shop("--anew", "--workspace", "runs/anew").failed
    assert cli("data", "diff", "runs/shop/dataset", "runs/anew/dataset").out.startswith("identical content")


def test_where_nothing_is_new_nothing_is_made_again_unless_asked(shop: Callable[..., Any]) -> None:
    assert json.loads(shop("--json").out)["is_new"] is True
    files = [path for path in Path("runs/shop").rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = shop()
    assert "nothing new since" in again.said
    assert {path: path.stat().st_mtime_ns for path in files} == before
    found = json.loads(shop("--json", "--anew").out)
    assert (found["is_new"], found["built"]) == (True, "built from scratch, as asked")
    assert (found["dataset"], found["page"]) == ("runs/shop/dataset", "runs/shop/data_report/report.html")
    assert {row["verdict"] for row in found["drift"]} == {"stable"}
    assert {path: path.stat().st_mtime_ns for path in files} != before


def test_a_report_that_was_lost_or_is_of_another_format_is_made_anew(shop: Callable[..., Any]) -> None:
    assert not shop().failed
    good = report()
    path = Path("runs/shop/data_report/quality.json")
    for text in ("", "[]", '{"format_version": 0}'):
        path.write_text(text)
        assert not shop().failed
        assert report() == good
    Path("runs/shop/data_report/report.html").unlink()
    assert not shop().failed
    assert Path("runs/shop/data_report/report.html").is_file()


def test_processes_make_the_same_dataset(shop: Callable[..., Any], tmp_path: Path) -> None:
    assert not shop("--set", "data.shards=3").failed
    words = ["prepare", "--config", "shop.yaml", "--data", "raw", "--workspace", "runs/other", "--set", "data.shards=3"]
    command = [sys.executable, "-m", "pipelines.cli", *words, "--engine", "processes", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    prints = [json.loads(Path(f"runs/{name}/dataset/manifest.json").read_text())["fingerprint"] for name in ("shop", "other")]
    assert prints[0] == prints[1]


def test_diff_explains_a_changed_config(shop: Callable[..., Any], cli: Callable[..., Any]) -> None:
    assert not shop().failed
    assert not shop("--workspace", "runs/b", "--set", "data.split.valid_share=0.2").failed
    words = ("data", "diff", "runs/shop/dataset", "runs/b/dataset")
    done = cli(*words)
    assert not done.failed
    assert "config split.valid_share: 0.1 -> 0.2" in done.out
    assert "split sizes: train 160 -> 140, valid 20 -> 40, test 20 -> 20" in done.out
    found = json.loads(cli(*words, "--json").out)
    assert found["same_content"] is False
    assert [change["key"] for change in found["config"]] == ["split.valid_share"]
    assert cli("data", "diff", "runs/b/dataset", "runs/b/dataset").out.strip() == "identical files"


def test_the_report_of_any_dataset_as_text_json_and_page(shop: Callable[..., Any], cli: Callable[..., Any]) -> None:
    assert not shop().failed
    done = cli("data", "report", "runs/shop/dataset", "--html", "page.html", "--json")
    assert not done.failed
    assert "200 timeline events of 10 users" in done.said
    found = json.loads(done.out)
    assert found["splits"]["train"]["events"] == 160
    assert found["events_per_user"]["max"] == 20
    page = Path("page.html").read_text()
    assert_self_contained(page)
    assert "Leaks" not in page


def test_leaks_are_named(shop: Callable[..., Any], cli: Callable[..., Any]) -> None:
    done = shop()
    assert "leak" not in done.said
    assert "no leaks found in runs/shop/dataset" in cli("data", "leaks", "runs/shop/dataset").said
    again: list[Row] = [("u4", "i4", (5 * 24) * 3600, 5, 1.0)]  # u4's first item, which is now in training and in test
    write_day(5, again)
    done = shop()
    assert "leak 4.8% of 21 test events have their user and item in the training timeline too (user u4, item i4)" in done.said
    assert "user u4, item i4" in Path("runs/shop/data_report/report.html").read_text()
    assert json.loads(shop("--json").out)["leaks"][0].endswith("(user u4, item i4)")
    done = cli("data", "leaks", "runs/shop/dataset", "--json")
    assert "leak 4.8% of 21 test events" in done.said
    assert json.loads(done.out)["held_out"]["test"]["seen"]["timeline"]["examples"] == [["u4", "i4"]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "data.events.time=when"], "when"),
        (["--set", "data.events.arrives=daily"], "data.events.arrives"),
        (["--set", "data.events.time_unit=ms"], "time is before 1971 or after 2100: is time_unit right?"),
        (["--engine", "processes", "--address", "here:1"], "--address has no use with --engine processes"),
    ],
)
def test_bad_input_ends_with_one_sentence(shop: Callable[..., Any], words: list[str], sentence: str) -> None:
    done = shop(*words)
    assert done.code == 2
    assert done.said.startswith("error: ")
    assert sentence in done.said
    assert not Path("runs/shop/dataset").exists()
    assert not Path("runs/shop/data_report").exists()


def test_labels_that_are_no_tasks_train_a_retriever_alone(shop: Callable[..., Any], tmp_path: Path) -> None:
    Path("shop.yaml").write_text(TARGETS)
    done = shop()
    assert "target watch: 200 labels, mean 0.5" in done.said
    config = load(Path("shop.yaml"))
    assert config.tasks == config.value == {}
    assert parts(config) == ["retriever"]
    command = [sys.executable, "-m", "pipelines.cli", "train", "--config", "shop.yaml"]
    trained = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert trained.returncode == 0, trained.stderr
    assert Path("runs/shop/retriever/manifest.json").is_file()
    assert not Path("runs/shop/ranker").exists()


def test_a_target_is_regressed_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(TARGETS)
    assert load(tmp_path / "shop.yaml").regression == []
    config = load(tmp_path / "shop.yaml", "ranker.tasks={watch: 1}")
    assert config.regression == ["watch"]
    assert config.value == {}
    with pytest.raises(InputError, match=r"serving\.value names the unknown task 'watch'"):
        load(tmp_path / "shop.yaml", "serving.value={watch: 1}")


def test_each_part_of_a_build_has_a_bar_on_a_terminal_and_elsewhere_none() -> None:
    for is_terminal in (True, False):
        file = io.StringIO()
        with BuildProgress(Console(file=file, force_terminal=is_terminal, width=100)) as progress:
            progress("sort and check", 1, 3)
            progress("sort and check", 2, 3)
            progress("labels", 1, 1)
        drawn = file.getvalue()
        assert ("sort and check" in drawn and "2/3" in drawn and "labels" in drawn) if is_terminal else not drawn
