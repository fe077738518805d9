"""What a day decides, holds and tells, without training anything."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from daily_world import CONFIG, World, day

from pipelines.daily.dataset import fingerprints
from pipelines.daily.layout import Layout
from pipelines.daily.lock import BUSY, BusyError, held, is_held
from pipelines.daily.state import STEPS, DayState, StepState
from pipelines.daily.steps import reload
from pipelines.daily.today import Today
from pipelines.daily.training import decide, moved
from pipelines.monitor.arrived import Arrived
from pipelines.workspace import Workspace
from recsys.artefact import write_artefact
from recsys.config import RunConfig
from recsys.data.build import build
from recsys.data.days import day_of
from recsys.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from pipelines.daily.lock import held
with held(Path(sys.argv[1]), "the test"):
    print("held", flush=True)
    time.sleep(600)
"""


def done(**detail: Any) -> StepState:
    return StepState(
        state="done", began="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:00:01+00:00", seconds=1, detail=detail
    )


def trained(layout: Layout, number: int, mode: str, *, checkpoint: bool = True) -> None:
    """A day whose model was trained, as far as deciding looks at it."""
    steps = {"prepare": done(built="appended 1 new file"), "train": done()}
    DayState(day=str(day(number)), mode=mode, steps=steps).save(layout.state(day(number)))  # type: ignore[arg-type]
    with write_artefact(layout.workspace(day(number)).dataset, "dataset"):
        pass
    if checkpoint:
        with write_artefact(layout.workspace(day(number)).checkpoint("retriever"), "checkpoint") as (folder, _):
            (folder / "model.safetensors").write_text("numbers")


def decided(
    layout: Layout, number: int, *, built: str = "appended 1 new file", drift: dict[str, float] | None = None,
    full: bool = False, **continual: Any,
) -> DayState:  # fmt: skip
    state = DayState(day=str(day(number)), steps={"prepare": done(built=built)})
    config = RunConfig.model_validate({**CONFIG, "continual": continual})
    decide(config, layout, day(number), state, full=full, drift=drift or {})
    return state


def came(number: int, phones: int) -> StepState:
    """A day's arrival: 1,000 rows of as many users, so many of them from phones."""
    return done(**Arrived(
        day=str(day(number)), units={}, stats={}, schema={}, content="", rows=1000, bad={}, users=1000, items=1, outside=0,
        first_ms=0, last_ms=0, bots={}, bot_rows=0, columns={"context device": {"phone": phones, "tv": 1000 - phones}},
    ).to_json())  # fmt: skip


class TestHowADayTrains:
    @pytest.mark.parametrize(("mode", "still"), [("warm", True), ("full", False)])
    def test_drift_counts_from_the_newest_training_from_scratch(self, tmp_path: Path, mode: Any, still: bool) -> None:
        """What moved on the second day is news on the third only where no model was trained from scratch since."""
        layout = Layout(tmp_path)
        for number, phones, how in ((1, 900, "first"), (2, 100, mode)):
            steps = {"arrive": came(number, phones), "train": done()}
            DayState(day=str(day(number)), mode=how, steps=steps).save(layout.state(day(number)))
        found = moved(layout, day(3), DayState(day=str(day(3)), steps={"arrive": came(3, 100)}))
        assert (found["context device"] > 0.25) == still
        back = moved(layout, day(3), DayState(day=str(day(3)), steps={"arrive": came(3, 900)}))
        assert back["context device"] > 0.25

    def test_the_first_one_from_scratch(self, tmp_path: Path) -> None:
        assert decided(Layout(tmp_path), 3).mode == "first"

    def test_the_next_one_from_the_newest_before_it(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path)
        for number, mode in ((1, "first"), (2, "warm"), (4, "warm")):
            trained(layout, number, mode)
        state = decided(layout, 3)
        assert (state.mode, state.start) == ("warm", "2026-01-02")

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"full": True}, "asked for"),
            ({"built": "built from scratch: new ones sort before them"}, "new ones sort before them"),
            ({"drift": {"events per item": 0.3, "x": 0.1}}, "events per item moved by a PSI of 0.30"),
        ],
    )  # fmt: skip
    def test_from_scratch_where_it_has_to_be(self, tmp_path: Path, options: dict[str, Any], why: str) -> None:
        trained(Layout(tmp_path), 1, "first")
        state = decided(Layout(tmp_path), 2, **options)
        assert (state.mode, state.start) == ("full", None)
        assert why in state.why

    def test_from_scratch_every_so_many_days(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path)
        trained(layout, 1, "first")
        trained(layout, 2, "warm")
        modes = [decided(layout, number, full_every_days=3).mode for number in (3, 4)]
        assert modes == ["warm", "full"]
        assert decided(layout, 30, full_every_days=None).mode == "warm"

    def test_from_scratch_where_a_dataset_since_the_start_was(self, tmp_path: Path) -> None:
        trained(Layout(tmp_path), 1, "first")
        DayState(day=str(day(2)), steps={"prepare": done(built="built from scratch, as asked")}).save(
            Layout(tmp_path).state(day(2))
        )
        state = decided(Layout(tmp_path), 3)
        assert (state.mode, state.why) == ("full", "the dataset was built from scratch, as asked")

    def test_from_scratch_where_no_checkpoint_is_left(self, tmp_path: Path) -> None:
        trained(Layout(tmp_path), 1, "first", checkpoint=False)
        assert "no earlier day has its checkpoints and dataset" in decided(Layout(tmp_path), 2).why

    def test_not_from_a_damaged_checkpoint(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path)
        for number, mode in ((1, "first"), (2, "warm"), (3, "warm")):
            trained(layout, number, mode)
        (layout.workspace(day(3)).checkpoint("retriever") / "model.safetensors").write_text("numb3rs")
        state = decided(layout, 4)
        assert (state.mode, state.start) == ("warm", "2026-01-02")
        assert "2026-01-03/retriever/model.safetensors is missing or differs from its manifest" in state.why


class TestTheLock:
    def test_it_refuses_a_second_run_and_goes_with_a_killed_one(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout.readline() == "held\n"
                with pytest.raises(BusyError, match=f"the test, process {child.pid} on"), held(path, "another"):
                    pass
            finally:
                child.kill()
        with held(path, "another"):
            assert json.loads(path.read_text())["process"] == os.getpid()
        assert path.read_text() == ""

    def test_a_look_at_it_keeps_nobody_out(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        assert not is_held(path)
        with held(path, "the test"):
            assert is_held(path)
        assert not is_held(path)
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # as a look does, for much less time
            threading.Timer(0.01, fcntl.flock, (file, fcntl.LOCK_UN)).start()
            with held(path, "the test"):
                pass

    def test_the_command_ends_with_75(self, tmp_path: Path, cli: Callable[..., Any]) -> None:
        (tmp_path / "raw/events/day=2026-01-01").mkdir(parents=True)
        (tmp_path / "raw/events/day=2026-01-01/a.parquet").write_text("not read")
        with held(tmp_path / "w/lock", "the test"):
            found = cli("daily", "--data", str(tmp_path / "raw"), "--workspace", str(tmp_path / "w"), "--day", "2026-01-01")
        assert found.code == BUSY
        assert "is held by the test" in found.said


class TestTheState:
    def test_it_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        state = DayState(day="2026-01-02", mode="warm", start="2026-01-01", steps={"arrive": done(rows=3)})
        state.save(tmp_path / "day.json")
        assert json.loads((tmp_path / "day.json").read_text())["from"] == "2026-01-01"
        assert DayState.load(tmp_path / "day.json") == state

    def test_a_damaged_one_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "day.json").write_text('{"day": ')
        with pytest.raises(InputError, match=r"day\.json is damaged .*: remove it"):
            DayState.load(tmp_path / "day.json")

    def test_a_step_done_again_takes_those_after_it_along(self) -> None:
        state = DayState(day="2026-01-02", steps={name: done() for name in ("arrive", "prepare", "train")})
        state.forget_from("prepare")
        assert list(state.steps) == ["arrive"]

    def test_days_are_those_that_were_begun(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path)
        for name in ("2026-01-10", "2026-01-09", "2026-01-09.1", "other"):
            Workspace(tmp_path / "days" / name).root.mkdir(parents=True)
            (tmp_path / "days" / name / "day.json").write_text("{}")
        (tmp_path / "days/2026-01-11").mkdir()
        assert layout.days() == [day(9), day(10)]
        assert layout.aside(day(9)).name == "2026-01-09.2"


class TestADayThatIsNotWhole:
    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        world = World.make(tmp_path, days=2)
        world.arrive(1)
        return world

    def test_one_that_stopped_is_reported_again_and_stays_stopped(self, world: World) -> None:
        with pytest.raises(InputError, match="no partition of 2026-01-02"):
            world.run(2)
        before = world.state(2)
        report = world.layout.folder(day(2)) / "report.md"
        for _ in range(2):
            report.unlink()
            found = world.run(2, step="report")
            assert (found.status, found.error) == (before.status, before.error) == ("stopped", found.error)
            assert "no partition of 2026-01-02" in report.read_text()

    def test_one_that_was_never_begun_has_no_report(self, world: World) -> None:
        with pytest.raises(InputError, match="--step report of 2026-01-02 comes after arrive"):
            world.run(2, step="report")
        assert world.layout.days() == []

    def test_one_whose_artefacts_were_cleared_is_not_trained_again_and_stays_done(self, world: World) -> None:
        state = DayState(
            day=str(day(1)), status="done", mode="warm", pruned=True, steps={name: done() for name in STEPS},
            raw=fingerprints(world.config(), world.raw, day(1)),
        )  # fmt: skip
        state.save(world.layout.state(day(1)))
        with pytest.raises(InputError, match=r"2026-01-01 has no dataset any more, since daily.keep_days is 7: remove "):
            world.run(1, full=True)
        assert world.state(1) == state

    def test_one_that_is_the_champion_no_more_is_not_waited_for(self, world: World) -> None:
        for number in (1, 2):
            steps = {"export": done(bundle=f"b{number}"), "promote": done(outcome="promoted")}
            state = DayState(day=str(day(number)), steps=steps, champion={"before": None, "after": number})
            state.save(world.layout.state(day(number)))
        config = world.config("daily.reload_seconds=0.1")
        found = reload(Today(config, world.raw, world.layout, day(1), world.state(1), endpoint="http://127.0.0.1:9"))
        assert found["why_not"] == "version 2 is the champion by now"
        with pytest.raises(InputError, match="does not serve b2"):
            reload(Today(config, world.raw, world.layout, day(2), world.state(2), endpoint="http://127.0.0.1:9"))


def test_users_that_were_forgotten_do_not_come_back_by_a_damaged_file(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.forgotten_users() == []
    layout.forgotten.write_text('{"users": ["u1"]}')
    assert layout.forgotten_users() == ["u1"]
    for text in ('{"users": ["u1"', "[]", "{}"):
        layout.forgotten.write_text(text)
        with pytest.raises(InputError, match=r"forgotten\.json is damaged .*: restore it, or write it anew"):
            layout.forgotten_users()


class TestDaysOfTheLog:
    @pytest.mark.parametrize(
        ("unit", "found"),
        [
            ("events/day=2026-02-03", date(2026, 2, 3)), ("log/20260203.csv", date(2026, 2, 3)),
            ("2025-12-31-export/d=2026-01-01", date(2026, 1, 1)), ("part-99999999/2026-02-03", date(2026, 2, 3)),
        ],
    )  # fmt: skip
    def test_the_last_date_of_the_name_counts(self, unit: str, found: date) -> None:
        assert day_of(unit) == found

    def test_a_name_without_one_is_refused(self) -> None:
        with pytest.raises(InputError, match="events/part-1 has no date in its name"):
            day_of("events/part-1")

    def test_a_log_up_to_a_day_is_the_log_without_the_later_ones(self, tmp_path: Path) -> None:
        world = World.make(tmp_path, days=4)
        world.arrive(1, 2, 3)
        data = world.config().data
        cut, shorter = (build(data, raw, tmp_path / name, until=day(3)) for raw, name in ((world.whole, "a"), (world.raw, "b")))
        assert cut["content"] == shorter["content"]
        assert len(cut["units"]) == 3
        with pytest.raises(InputError, match="the log begins on 2026-01-01, after 2025-12-31"):
            build(data, world.raw, tmp_path / "c", until=date(2025, 12, 31))
        together = world.config("data.events.arrives=together").data
        with pytest.raises(InputError, match="arrives is together"):
            build(together, world.raw, tmp_path / "c", until=day(3))


def test_the_command_line_and_a_schedules_rules_are_read_without_torch() -> None:
    program = "import sys, pipelines.cli, pipelines.follow, pipelines.schedule.target; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
