"""`recsys status`: the page, the JSON, and the exit code that a monitor reads."""

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.daily.layout import Layout
from pipelines.daily.lock import held
from pipelines.daily.state import DayState
from pipelines.monitor.status import Status, read_status
from pipelines.workspace import config_path
from recsys.config import RunConfig, load
from recsys.errors import InputError

NOW = datetime.now(UTC)
DAYS = ("2026-02-01", "2026-02-02", "2026-02-03")


@pytest.fixture
def config() -> RunConfig:
    return load(config_path("demo"))


def write(root: Path, day: str, **changed: Any) -> DayState:
    ended = NOW - timedelta(hours=5)
    step = {"state": "done", "began": ended.isoformat(), "ended": ended.isoformat(), "seconds": 2.0}
    details: dict[str, Any] = {
        "arrive": {"rows": 1234, "users": 56}, "evaluate": {"metrics": {"NDCG@10": 0.1234}}, 
        "export": {"version": int(day[-2:])},
    }  # fmt: skip
    state = DayState.model_validate({
        "day": day, "status": "done", "mode": "warm", "champion": {"before": None, "after": int(day[-2:])},
        "steps": {name: {**step, "detail": detail} for name, detail in details.items()},
        "decision": {"outcome": "promoted"}, **changed,
    })  # fmt: skip
    state.save(Layout(root).folder(datetime.fromisoformat(day).date()) / "day.json")
    return state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for day in DAYS:
        write(tmp_path / "runs", day)
    return tmp_path / "runs"


def names(status: Status) -> list[str]:
    return [alarm.name for alarm in status.alarms]


def test_days_that_are_well(cli: Any, root: Path) -> None:
    done = cli("status", "--workspace", str(root), "--json")
    assert done.code == 0, done.said
    found = json.loads(done.out)
    assert (found["newest_day"], found["status"], found["champion"]) == (DAYS[-1], "done", {"version": 3, "day": DAYS[-1]})
    assert [row["day"] for row in found["days"]] == list(DAYS)
    assert found["days"][0] == {
        "day": DAYS[0], "status": "done", "mode": "warm", "rows": 1234, "users": 56, "NDCG@10": 0.1234, "outcome": "promoted",
        "champion": 1, "seconds": 6.0, "alarms": 0, "error": None,
    }  # fmt: skip
    assert (found["alarms"], found["running"]) == ([], None)
    for word in (
        "2026-02-03",
        "warm",
        "promoted",
        "1,234",
        "0.1234",
        "champion: version 3, trained on 2026-02-03",
        "no alarm stands",
    ):
        assert word in done.said


def test_an_alarm_of_the_newest_day_stands_and_one_of_an_older_day_does_not(cli: Any, root: Path) -> None:
    alarm = {"name": "rows", "value": 0.6, "limit": 0.5, "sentence": "240 rows came: ask what writes the log"}
    write(root, DAYS[1], alarms=[alarm])
    assert cli("status", "--workspace", str(root), "--json").code == 0
    write(root, DAYS[2], alarms=[alarm])
    done = cli("status", "--workspace", str(root), "--json")
    assert done.code == 1
    assert json.loads(done.out)["alarms"] == [alarm]
    assert "alarm rows: 240 rows came: ask what writes the log" in cli("status", "--workspace", str(root)).said


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_day_that_stopped_says_why(root: Path, config: RunConfig, how: str) -> None:
    write(root, "2026-02-04", status=how, error="arrive: 2026-02-04 has no rows", champion={"before": None, "after": None})
    status = read_status(config, root, NOW)
    assert names(status) == [f"day {how}"]
    assert "the champion stays: arrive: 2026-02-04 has no rows. When it is mended" in status.alarms[0].sentence
    assert status.found["champion"] == {"version": 3, "day": DAYS[-1]}


def test_a_run_that_goes_on_is_no_alarm_and_a_killed_one_is(root: Path, config: RunConfig) -> None:
    write(root, DAYS[2], status="running")
    lock = Layout(root).lock
    with held(lock, "recsys daily of 2026-02-03"):
        status = read_status(config, root, NOW + timedelta(days=3))
        assert names(status) == []
        assert str(status.found["running"]).startswith(f"recsys daily of 2026-02-03, process {os.getpid()} on")
    assert names(read_status(config, root, NOW)) == ["day interrupted"]
    gone = {"what": "recsys daily", "process": 2**22 + 1, "host": socket.gethostname(), "since": "now"}  # above any process
    lock.write_text(json.dumps(gone))
    assert names(read_status(config, root, NOW)) == ["day interrupted"]
    lock.write_text(json.dumps({**gone, "host": "another"}))
    assert names(read_status(config, root, NOW)) == []


def test_a_process_that_has_the_number_of_a_killed_run_is_none(root: Path, config: RunConfig) -> None:
    write(root, DAYS[2], status="running")
    killed = {"what": "recsys daily", "process": os.getpid(), "host": socket.gethostname(), "since": "now"}
    Layout(root).lock.write_text(json.dumps(killed))
    assert names(read_status(config, root, NOW)) == ["day interrupted"]


def test_the_name_of_another_machines_run_hides_no_silence(root: Path, config: RunConfig) -> None:
    gone = {"what": "recsys daily", "process": 1, "host": "a pod that was evicted", "since": "now"}
    Layout(root).lock.write_text(json.dumps(gone))
    assert names(read_status(config, root, NOW + timedelta(hours=43))) == ["silent"]


def test_a_day_that_failed_after_its_promotion_does_not_say_that_the_champion_stays(root: Path, config: RunConfig) -> None:
    steps = write(root, DAYS[2]).steps
    write(root, DAYS[2], status="failed", error="reload: no server", steps={**steps, "promote": steps["export"]})
    [alarm] = read_status(config, root, NOW).alarms
    assert alarm.sentence == "2026-02-03 failed: reload: no server. When it is mended, run `recsys daily` again"


def test_a_schedule_that_stands_still(root: Path, config: RunConfig) -> None:
    assert names(read_status(config, root, NOW + timedelta(hours=30))) == []
    [alarm] = read_status(config, root, NOW + timedelta(hours=43)).alarms
    assert (alarm.name, alarm.limit) == ("silent", 36)
    assert "ended 48.0 hours ago, more than daily.alarm_silent_hours 36" in alarm.sentence
    quiet = load(config_path("demo"), "daily.alarm_silent_hours=null")
    assert names(read_status(quiet, root, NOW + timedelta(days=90))) == []


def test_a_workspace_without_days(cli: Any, tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(InputError, match="has no days: run one with `recsys daily`"):
        read_status(config, tmp_path, NOW)
    done = cli("status", "--workspace", str(tmp_path))
    assert done.code == 2
    assert "has no days" in done.said


def test_only_the_last_fortnight_is_shown(tmp_path: Path, config: RunConfig) -> None:
    for number in range(1, 21):
        write(tmp_path, f"2026-02-{number:02d}")
    status = read_status(config, tmp_path, NOW)
    assert [row["day"] for row in status.found["days"]] == [f"2026-02-{number:02d}" for number in range(7, 21)]
