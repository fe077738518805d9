"""Alarms: quiet on days like the days before, and each one where its figure was planted."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from arriving import Log, day, people

from pipelines.daily.layout import Layout
from pipelines.daily.state import DayState
from pipelines.monitor.alarm import Alarm
from pipelines.monitor.alarms import data_alarms, day_alarms, drift
from pipelines.monitor.arrived import Arrived, Bins, days_before, flattened
from pipelines.monitor.histograms import OTHER, aligned, powers_of_two
from pipelines.monitor.stability import chi_squared, stability
from recsys.config import RunConfig
from recsys.data.drift import psi

NDCG, AUC = "NDCG@10", "AUC/click"


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A week of people, and a day after it."""
    log = Log(tmp_path / "raw")
    log.people(*range(8))
    for number in range(7):
        log.arrive(number)
    return log


def judged(log: Log, number: int = 7) -> tuple[Arrived, list[Arrived]]:
    found = log.arrive(number)
    return found, days_before(str(day(number)), flattened(log.known))


def alarms(log: Log, number: int = 7) -> list[Alarm]:
    return list(data_alarms(*judged(log, number), log.config.daily))


def test_three_weeks_of_people_raise_no_alarm(tmp_path: Path) -> None:
    log = Log(tmp_path / "raw")
    log.people(*range(21))
    assert [alarm.sentence for number in range(21) for alarm in alarms(log, number)] == []


def test_volume_both_ways(log: Log) -> None:
    log.write(7, people(7, rows=240))
    [alarm] = [each for each in alarms(log) if each.name == "rows"]
    assert (alarm.value, alarm.limit) == (pytest.approx(0.6), 0.5)
    assert "240 rows came on 2026-02-08, many fewer than the 600" in alarm.sentence
    log.write(7, people(7, rows=1500))
    [alarm] = [each for each in alarms(log) if each.name == "rows"]
    assert "many more than the 600 of the days before: a change of 60% of the larger" in alarm.sentence


def test_a_column_that_moved_is_named_with_its_index(log: Log) -> None:
    rows = people(7)
    log.write(7, rows.with_columns(device=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("watch")).otherwise("device")))
    found, before = judged(log)
    [alarm] = data_alarms(found, before, log.config.daily)
    bins: Bins = found.columns["context device"]
    old = {name: sum(each.columns["context device"][name] for each in before) for name in ("phone", "desktop", "tv")}
    before_all, users, all_users = sum(old.values()), found.users, sum(each.users for each in before)
    after = [bins[name] / 600 * users + 0.5 for name in (*old, "watch")]
    assert alarm.value == pytest.approx(psi([*(n / before_all * all_users + 0.5 for n in old.values()), 0.5], after))
    assert (alarm.name, alarm.limit) == ("drift: context device", 0.25)
    assert "compare the days, and train from scratch with `recsys daily --full`" in alarm.sentence
    assert drift(found, before)["context device"] == alarm.value
    assert drift(found, before)["label click"] == 0.0


def test_what_few_users_do_is_chance(log: Log) -> None:
    """The same index, by a day of many users and one of few."""
    many, few = (
        Arrived(
            day="2026-03-02", units={}, stats={}, schema={}, content="", rows=1000, bad={}, users=users, items=1, outside=0,
            first_ms=0, last_ms=0, bots={}, bot_rows=0, columns={"context device": {"phone": 300, "tv": 700}},
        )
        for users in (1000, 10)
    )  # fmt: skip
    before = [Arrived.of({**many.to_json(), "columns": {"context device": {"phone": 600, "tv": 400}}})]
    assert before[0] is not None
    [moved], [chance] = stability(many, [before[0]]), stability(few, [before[0]])
    # Five of ten users would be expected to have a phone, and four a TV, which counts as the rest: two bins as before.
    assert moved.psi == pytest.approx((0.3 - 0.6) * -0.693147 + (0.7 - 0.4) * 0.559616, rel=0.01)
    assert chance.psi == pytest.approx((0.318 - 0.6) * -0.6343 + (0.682 - 0.4) * 0.5332, rel=0.01)  # 3 and 7 users, and halves
    assert chance.chance == pytest.approx((1 / 10 + 1 / 1000) * 10.828, rel=0.04)
    assert (moved.shown, chance.shown) == (moved.psi, 0.0)


def test_chi_squared_is_that_of_the_tables() -> None:
    for degrees, known in ((1, 10.828), (2, 13.816), (5, 20.515), (23, 49.728)):
        assert chi_squared(degrees) == pytest.approx(known, rel=0.04)
    assert chi_squared(0) == 0.0


def test_a_cut_off_list_of_values_is_compared_by_the_names_that_are_known() -> None:
    assert aligned([{"a": 5, "b": 3}], {"b": 1, "c": 2}) == ([5, 3, 0], [0, 1, 2])
    assert aligned([{"a": 5, OTHER: 3}, {"a": 1, "b": 1}], {"b": 1, "c": 2, OTHER: 4}) == ([6, 1, 3], [0, 1, 6])


def test_numbers_fall_into_powers_of_two() -> None:
    values = pl.DataFrame({"x": [0.0, 1.0, 3.9, 4.0, 0.3, -5.0, float("nan"), None]})
    assert values.select(powers_of_two("x")).to_series().to_list() == ["0", "2^0", "2^1", "2^2", "2^-2", "-2^2", "none", "none"]


def test_columns_that_nobody_reads_change_with_an_alarm(log: Log) -> None:
    log.write(7, people(7).with_columns(page=pl.lit(1)))
    [alarm] = alarms(log)
    assert (alarm.name, alarm.value, alarm.limit) == ("schema", 1, 0)
    assert "page is new" in alarm.sentence


def test_limits_that_are_null_say_nothing(log: Log) -> None:
    log.daily |= {"alarm_volume": None, "alarm_drift": None, "min_rows_share": 0, "min_users_share": 0}
    log.write(7, people(7, rows=60, users=20).with_columns(device=pl.lit("watch")))
    assert alarms(log) == []


@pytest.fixture
def run(log: Log, tmp_path: Path) -> "Run":
    """Seven days that are done, and one that is about to be reported."""
    run = Run(log, Layout(tmp_path / "runs"))
    for number in range(7):
        run.done(number)
    log.arrive(7)
    return run


class Run:
    """Days as the daily run leaves them, with the files that alarms read."""

    def __init__(self, log: Log, layout: Layout):
        self.log, self.layout = log, layout

    @property
    def config(self) -> RunConfig:
        return self.log.config

    def state(self, number: int, *, ndcg: float = 0.2, auc: float = 0.7, champion: int | None = None) -> DayState:
        step = {"state": "done", "began": "2026-02-01T01:00:00+00:00", "ended": "2026-02-01T02:00:00+00:00", "seconds": 5.0}
        details: dict[str, Any] = {
            "arrive": self.log.known[str(day(number))], "train": {}, 
            "evaluate": {"metrics": {NDCG: ndcg, AUC: auc, "HR@10": 0}},
            "export": {"version": number + 1},
        }  # fmt: skip
        return DayState.model_validate({
            "day": str(day(number)), "status": "done", "steps": {name: {**step, "detail": d} for name, d in details.items()},
            "champion": {"before": None, "after": champion or number + 1},
        })  # fmt: skip

    def done(self, number: int, loss: tuple[float, ...] = (2.0, 1.5, 1.0), **what: Any) -> DayState:
        self.curve(number, loss)
        state = self.state(number, **what)
        state.save(self.layout.state(day(number)))
        return state

    def curve(self, number: int, loss: tuple[float, ...]) -> None:
        for part in ("retriever", "ranker"):
            folder = self.layout.workspace(day(number)).checkpoint(part)
            folder.mkdir(parents=True, exist_ok=True)
            entries = [{"epoch": 0, "step": 0}, *({"epoch": n, "loss": value} for n, value in enumerate(loss, 1))]
            (folder / "history.json").write_text(json.dumps(entries))

    def alarms(self, state: DayState) -> dict[str, Alarm]:
        return {alarm.name: alarm for alarm in day_alarms(self.config, self.layout, state)}


def test_a_day_like_the_days_before_raises_no_alarm(run: Run) -> None:
    run.curve(7, (1.4, 1.2, 1.1))
    assert run.alarms(run.state(7, ndcg=0.17, auc=0.68)) == {}


@pytest.mark.parametrize(
    ("loss", "name", "words"),
    [
        ((2.0, 1.0, 1.6), "training: ranker, loss curve", "ended at 1.6, 60% above its lowest value 1"),
        ((1.8, 1.6), "training: ranker, loss", "ended at 1.6, 60% above the 1 of the days before"),
        ((1.0, float("nan")), "training: ranker, not finite", "not a finite number"),
    ],
)
def test_losses_that_go_wrong(run: Run, loss: tuple[float, ...], name: str, words: str) -> None:
    run.curve(7, loss)
    found = run.alarms(run.state(7))
    assert words in found[name].sentence
    assert name.replace("ranker", "retriever") in found


def test_a_damaged_history_of_a_day_before_fails_no_day(run: Run) -> None:
    for name, text in (("retriever", '[{"epoch": 1, "lo'), ("ranker", "\x00")):
        (run.layout.workspace(day(5)).checkpoint(name) / "history.json").write_text(text)
    run.curve(7, (1.8, 1.6))
    assert "ended at 1.6, 60% above the 1 of the days before" in run.alarms(run.state(7))["training: ranker, loss"].sentence


def test_batches_that_were_kept_after_a_step_that_was_not_finite(run: Run) -> None:
    kept = run.layout.workspace(day(7)).root / "ranker.failed" / "step-12-rank-0"
    kept.mkdir(parents=True)
    [alarm] = run.alarms(run.state(7)).values()
    assert (alarm.name, alarm.value, alarm.limit) == ("training: ranker, not finite", 1, 0)
    assert str(kept) in alarm.sentence


def test_metrics_that_drop(run: Run) -> None:
    found = run.alarms(run.state(7, ndcg=0.15, auc=0.65))
    assert set(found) == {f"metric: {NDCG}", f"metric: {AUC}"}
    assert found[f"metric: {NDCG}"].value == pytest.approx(0.25)
    assert found[f"metric: {AUC}"].value == pytest.approx(0.25)  # of what it is above 0.5
    assert (
        "NDCG@10 is 0.1500 on 2026-02-08 and was 0.2000 on the days before: a drop of 25%" in found[f"metric: {NDCG}"].sentence
    )
    run.log.daily["alarm_metric"] = 0.3
    assert run.alarms(run.state(7, ndcg=0.15, auc=0.65)) == {}


def test_a_champion_of_days_ago(run: Run) -> None:
    assert run.alarms(run.state(7, champion=5)) == {}  # of the fifth day, three days ago
    [alarm] = run.alarms(run.state(7, champion=4)).values()
    assert (alarm.name, alarm.value, alarm.limit) == ("stale champion", 4, 3)
    assert "version 4, was trained on 2026-02-04, 4 days before 2026-02-08" in alarm.sentence
    stopped = DayState(day=str(day(12)), status="stopped", error="arrive: no rows")  # nothing is known of it yet
    assert run.alarms(stopped)["stale champion"].value == 6


def test_every_alarm_says_figure_and_limit(run: Run) -> None:
    run.log.write(7, people(7, rows=240).with_columns(device=pl.lit("watch"), page=pl.lit(1)))
    run.log.arrive(7)
    run.curve(7, (1.0, 4.0))
    found = run.alarms(run.state(7, ndcg=0.1, auc=0.6, champion=2))
    assert len(found) >= 9
    for alarm in found.values():
        assert alarm.sentence.count(": ") >= 1
        assert "\n" not in alarm.sentence
        assert "daily.alarm_" in alarm.sentence or "0 should" in alarm.sentence
