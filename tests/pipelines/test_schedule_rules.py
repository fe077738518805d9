"""What a schedule decides, apart from Dagster: which days to run, what a step's end means, cron's line."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.daily.lock import BUSY, held
from pipelines.daily.state import DayState
from pipelines.schedule.arriving import There, find_days, look, newest_done, runnable, wanted
from pipelines.schedule.cron import crontab
from pipelines.schedule.step import run_step
from pipelines.schedule.target import VARIABLE, Target
from pipelines.workspace import config_path
from recsys.config import load
from recsys.daily_config import DailyConfig
from recsys.errors import InputError

ROOT = Path(__file__).parents[2]


def target(folder: Path, **more: object) -> Target:
    first = {
        "config": "demo",
        "data": folder / "raw",
        "events": {},
        "daily": {},
        "workspace": folder / "ws",
        "directory": ROOT,
        "first_day": date(2026, 2, 1),
    }
    return Target.model_validate({**first, **more})


def partition(raw: Path, day: str, text: str = "x") -> Path:
    file = raw / "events" / f"day={day}" / "part-0.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_day_is_run_when_two_looks_find_the_same_files() -> None:
    run_, seen = wanted({"2026-02-01": "a"}, {}, done=None, marked=False)
    assert run_ == []
    run_, seen = wanted({"2026-02-01": "b"}, seen, done=None, marked=False)
    assert run_ == [], "it grew between the looks"
    run_, seen = wanted({"2026-02-01": "b"}, seen, done=None, marked=False)
    assert run_ == ["2026-02-01"]
    assert wanted({"2026-02-01": "b"}, seen, done=None, marked=False)[0] == [], "asked for once"


def test_a_marker_spares_the_second_look() -> None:
    assert wanted({"2026-02-01": "a"}, {}, done=None, marked=True)[0] == ["2026-02-01"]


def test_the_first_look_takes_what_is_newer_than_the_newest_day_done() -> None:
    whole = {"2026-02-01": "a", "2026-02-02": "b", "2026-02-03": "c"}
    assert wanted(whole, None, done="2026-02-01", marked=True)[0] == ["2026-02-02", "2026-02-03"]
    assert wanted(whole, None, done=None, marked=True)[0] == ["2026-02-03"], "the first run of all takes the others along"


def test_a_late_day_and_one_whose_files_changed_are_run_and_one_that_was_away_is_not() -> None:
    _, seen = wanted({"2026-02-02": "b", "2026-02-03": "c"}, None, done="2026-02-03", marked=True)
    run_, seen = wanted({"2026-02-01": "a", "2026-02-02": "B", "2026-02-03": "c"}, seen, done="2026-02-03", marked=True)
    assert run_ == ["2026-02-01", "2026-02-02"]
    run_, seen = wanted({"2026-02-01": "a"}, seen, done="2026-02-03", marked=True)  # a mount that went
    assert run_ == []
    assert wanted({"2026-02-01": "a", "2026-02-02": "B", "2026-02-03": "c"}, seen, done="2026-02-03", marked=True)[0] == []


def test_what_is_still_written_waits_and_says_why(tmp_path: Path) -> None:
    config = load(config_path("demo"), "daily.marker=_SUCCESS", "daily.quiet_seconds=60")
    for day in ("2026-02-01", "2026-02-02", "2026-02-03"):
        file = partition(tmp_path, day)
        os.utime(file, (1000, 1000))
        (file.parent / "_SUCCESS").touch()
    (tmp_path / "events/day=2026-02-02/_SUCCESS").unlink()
    os.utime(tmp_path / "events/day=2026-02-03/part-0.csv", (1950, 1950))
    there = look(config.data.events, config.daily, tmp_path, now=2000)
    assert list(there.whole) == ["2026-02-01"]
    assert "_SUCCESS" in there.waiting["2026-02-02"]
    assert "50 s ago" in there.waiting["2026-02-03"]
    before = there.whole["2026-02-01"]
    partition(tmp_path, "2026-02-01", "longer")
    assert look(config.data.events, config.daily, tmp_path, now=1e12).whole["2026-02-01"] != before


def test_a_look_takes_no_longer_for_each_day_the_more_days_there_are(tmp_path: Path) -> None:
    """The sensor looks each minute, and a log has years of days."""
    events = load(config_path("demo")).data.events
    for number in range(200):
        for part in range(3):
            partition(tmp_path, str(date(2025, 1, 1) + timedelta(number))).with_name(f"part-{part}.csv").touch()
    clocks = [time.process_time()]
    for each in (lambda: find_days(events, tmp_path), lambda: look(events, DailyConfig(), tmp_path, now=1e12)):
        each()
        clocks.append(time.process_time())
    assert clocks[2] - clocks[1] < 15 * (clocks[1] - clocks[0])


def test_days_that_dagster_has_no_partition_for_wait(tmp_path: Path) -> None:
    whole = {"2026-01-31": "a", "2026-02-01": "b", "2026-02-02": "c", "2099-01-01": "d"}
    now = datetime(2026, 2, 3, tzinfo=UTC).timestamp()
    found = runnable(There(whole, {"2026-02-09": "no marker"}), date(2026, 2, 1), now, 0)
    assert list(found.whole) == ["2026-02-01", "2026-02-02"]
    assert found.waiting["2026-02-09"] == "no marker"
    assert "start `recsys schedule` again" in found.waiting["2026-01-31"]
    assert found.waiting["2099-01-01"] == "2099-01-01 is not over yet"
    assert list(runnable(There(whole, {}), date(2026, 2, 1), now - 1, 9).whole) == ["2026-02-01"]
    assert list(runnable(There(whole, {}), date(2026, 2, 1), now, -8).whole) == ["2026-02-01"], "it ends at 8:00 UTC"


def test_a_log_without_days_is_refused(tmp_path: Path) -> None:
    partition(tmp_path, "2026-02-01")
    with pytest.raises(InputError, match="arrives is together"):
        find_days(load(config_path("demo"), "data.events.arrives=together").data.events, tmp_path)


def test_the_newest_day_that_ended_well(tmp_path: Path) -> None:
    assert newest_done(tmp_path) is None
    for day, status in (("2026-02-01", "done"), ("2026-02-02", "done"), ("2026-02-03", "stopped")):
        DayState(day=day, status=status).save(tmp_path / "days" / day / "day.json")  # type: ignore[arg-type]
    assert newest_done(tmp_path) == "2026-02-02"


def test_how_a_step_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said: list[str] = []
    partition(tmp_path / "raw", "2026-02-01")
    ended = run_step(target(tmp_path), "arrive", "2026-02-09", say=said.append)
    assert ended.status == 2
    assert "2026-02-09" in ended.sentence
    assert ended.sentence in "".join(said)
    with held(tmp_path / "ws/lock", "the test"):
        assert run_step(target(tmp_path), "arrive", "2026-02-01", say=said.append).status == BUSY


def test_a_target_is_the_same_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = target(tmp_path, overrides=("seed=3",), endpoint="http://127.0.0.1:3000", at="03:30")
    monkeypatch.setenv(VARIABLE, str(made.write(tmp_path / "home")))
    assert Target.of_environment() == made
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(InputError, match="does not exist"):
        Target.of_environment()


@pytest.mark.parametrize("at", ["24:00", "3", "12:60"])
def test_a_time_that_no_clock_shows_is_refused(tmp_path: Path, at: str) -> None:
    with pytest.raises(ValidationError):
        target(tmp_path, at=at)


def test_the_line_for_cron_runs_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "a 100% odd name"
    line = crontab(target(folder, at="22:15", directory=tmp_path))
    assert line.startswith("15 22-23 * * * ")
    command = line.split(" ", 5)[5]
    assert "\\%" in command
    words = shlex.split(command.replace("\\%", "%"))
    assert words[words.index("--data") + 1] == str(folder / "raw")
    assert Path(words[-2]) == folder / "ws/cron.log"
    assert crontab(target(folder)).startswith("0 3-8 * * * ")


def test_the_line_for_cron_logs_into_a_workspace_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = crontab(target(tmp_path, workspace=tmp_path / "new one")).split(" ", 5)[5]
    assert subprocess.run(["sh", "-c", command.replace("\\%", "%")]).returncode == 2
    assert f"{tmp_path / 'raw'} is not a folder" in (tmp_path / "new one/cron.log").read_text()


def test_the_line_for_cron_names_the_store_that_cron_would_not_know(
    tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    partition(tmp_path, "2026-02-01")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    options = ("schedule", "--data", str(tmp_path), "--print-cron")
    assert " --store http://mlflow:5000 " in cli(*options).out
    assert " --store http://other:5000 " in cli(*options, "--store", "http://other:5000").out


def test_nothing_else_imports_dagster() -> None:
    """A machine without the extra has the whole command line, `recsys schedule --print-cron` included."""
    code = (
        "import sys; sys.modules['dagster'] = None; import pipelines.cli, pipelines.schedule.arriving, pipelines.schedule.run, "
        "pipelines.daily.run; print([name for name in sys.modules if name.startswith('dagster')])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.strip() == "['dagster']"


def test_dagster_stays_silent_and_runs_one_day_at_a_time(tmp_path: Path) -> None:
    import yaml

    from pipelines.schedule.home import write_home

    write_home(tmp_path)
    settings = yaml.safe_load((tmp_path / "dagster.yaml").read_text())
    assert settings["telemetry"] == {"enabled": False}
    assert settings["concurrency"]["runs"]["max_concurrent_runs"] == 1
    (tmp_path / "dagster.yaml").write_text("storage: mine\n")
    write_home(tmp_path)
    assert (tmp_path / "dagster.yaml").read_text() == "storage: mine\n", "the user's own stays"
