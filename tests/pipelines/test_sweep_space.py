"""What is searched, read and checked; and what is tried next, without any training."""

import math
from pathlib import Path
from typing import Any

import pytest

from pipelines.sweeping.entries import Choices, Range
from pipelines.sweeping.space import Space, read_space
from pipelines.sweeping.study import Trials, best_first, counted, number_of, open_study, pruner
from pipelines.sweeping.trial import Outcome
from pipelines.workspace import CONFIGS
from recsys.config import RunConfig, load
from recsys.errors import InputError

DEMO = CONFIGS / "demo.yaml"
RATE = "retriever.fit.learning_rate: {low: 1e-4, high: 1e-2, log: true}"
BLOCKS = "retriever.encoder.blocks: [1, 2, 4]"


def read(*texts: str, file: Path | None = None, stage: str | None = None) -> Space:
    return read_space(list(texts), file, load(DEMO), loaded, stage)


def loaded(*overrides: str) -> RunConfig:
    return load(DEMO, *overrides)


class TestReading:
    def test_numbers_and_choices(self, tmp_path: Path) -> None:
        (tmp_path / "space.yaml").write_text("retriever.fit.batch_size: {low: 32, high: 100, step: 32}\n")
        space = read(RATE, BLOCKS, file=tmp_path / "space.yaml")
        assert space.stage == "retriever"
        assert set(space.entries) == {"retriever.fit.batch_size", "retriever.fit.learning_rate", "retriever.encoder.blocks"}
        rate = space.entries["retriever.fit.learning_rate"]
        assert isinstance(rate, Range)
        assert (rate.low, rate.high) == (1e-4, 1e-2)  # which YAML itself takes for texts
        assert space.entries["retriever.fit.batch_size"].points() == [32, 64, 96]
        assert space.points() is None

    def test_the_longest_training_decides_when_trials_may_be_given_up(self) -> None:
        assert read(RATE).epochs(load(DEMO)) == load(DEMO).retriever.fit.epochs
        assert read("retriever.fit.epochs: [40, 60, 8]").epochs(load(DEMO)) == 60
        assert read("retriever.fit.epochs: {low: 4, high: 30}").epochs(load(DEMO)) == 30

    def test_a_whole_section_is_a_choice(self) -> None:
        space = read("retriever.loss: [{kind: full_softmax}, {kind: sampled_softmax}]")
        points = list(space.points() or [])
        assert [space.values(point) for point in points] == [
            {"retriever.loss": {"kind": "full_softmax"}},
            {"retriever.loss": {"kind": "sampled_softmax"}},
        ]

    def test_the_config_itself_has_its_place_unless_it_lies_outside(self) -> None:
        space = read(RATE, "retriever.loss: [{kind: bpr}, {kind: full_softmax}]")
        point = space.point_of(load(DEMO), loaded)
        assert point == {"retriever.fit.learning_rate": 1e-3, "retriever.loss": "{kind: full_softmax}"}
        assert read("retriever.fit.learning_rate: {low: 0.1, high: 0.2}").point_of(load(DEMO), loaded) is None
        assert read("retriever.encoder.blocks: [2, 4]").point_of(load(DEMO), loaded) is None

    def test_one_true_and_the_text_of_it_are_three_choices(self) -> None:
        choices = Choices(values=(1, True, 1.5, None))
        assert [choices.value(label) for label in choices.labels] == [1, True, 1.5, None]
        assert choices.value(True) is True

    def test_steps_that_do_not_reach_the_end(self) -> None:
        assert Range(low=0.1, high=0.45, step=0.1).last == pytest.approx(0.4)
        assert Range(low=1, high=8, step=3).points() == [1, 4, 7]
        assert Range(low=1, high=8, step=3).holding(5) is None
        assert len(Range(low=0.1, high=0.4, step=0.1).points() or []) == 4

    @pytest.mark.parametrize(
        ("texts", "says"),
        [
            ([], "nothing to search: say --search"),
            (["retriever.fit.rate: [1]"], "retriever.fit.rate cannot be 1: .*unknown key 'retriever.fit.rate': choose from"),
            (["retriever.encoder.blocks: [1, 0]"], "retriever.encoder.blocks cannot be 0: "),
            (["retriever.loss: [{kind: bpr}, {kind: nice}]"], "retriever.loss cannot be {kind: nice}: .*'bpr', "),
            (["retriever.fit.learning_rate: {low: 1, high: 0.1}"], "low 1 is above high 0.1: swap them"),
            (["retriever.fit.learning_rate: {low: 0, high: 0.1, log: true}"], "log needs a low above 0, and it is 0"),
            (["retriever.fit.learning_rate: {low: 0, high: 0.1}"], "learning_rate cannot be 0: .*greater than 0"),
            (["retriever.fit.epochs: {low: 1, high: 9, step: 0.5}"], "step 0.5 must be above 0, whole between whole bounds"),
            (["retriever.fit.epochs: {low: 1}"], "high: Field required"),
            (["retriever.fit.epochs: {low: one, high: 2}"], "retriever.fit.epochs: low: Input should be a valid"),
            (["retriever.fit.epochs: {low: 1, high: .inf}"], "high: Input should be a finite number"),
            (["retriever.fit.epochs: {lo: 1, high: 2}"], "retriever.fit.epochs: "),
            (["retriever.encoder.blocks: []"], "retriever.encoder.blocks: there is nothing to choose from"),
            (["retriever.encoder.blocks: [1, 2, 1]"], "retriever.encoder.blocks: 1 stands there twice"),
            (["retriever.encoder.blocks: [2, '2']"], "retriever.encoder.blocks: 2 stands there twice"),
            (["retriever.loss: [{kind: full_softmax}, {}]"], "retriever.loss: {} says the same as a choice before it"),
            (["retriever.encoder.blocks: 2"], "2 is neither a list nor a range: write 'section.key: "),
            (["retriever.encoder.blocks"], "does not map config keys to values"),
            (["a: ["], "is not valid YAML"),
            ([BLOCKS, BLOCKS], "names retriever.encoder.blocks once more"),
            (["seed: [1, 2]"], "seed cannot be searched, since `seed` must be equal in all trials"),
            (["data.split: [{kind: leave_one_out}]"], "data.split cannot be searched"),
            (["retriever.encoder: [{kind: hstu}]", BLOCKS], "retriever.encoder.blocks lies in retriever.encoder"),
            (["max_history: [20, 50]"], "are not all of one stage: say which to train by --stage"),
            ([BLOCKS, "ranker.fit.epochs: [1, 2]"], "are not all of one stage"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_searched_is_said_before_anything_is_trained(self, texts: list[str], says: str) -> None:
        with pytest.raises(InputError, match=says):
            read(*texts)

    def test_a_key_of_another_stage_changes_nothing(self) -> None:
        with pytest.raises(InputError, match=r"ranker.fit.epochs changes nothing of the retriever: leave it out"):
            read("ranker.fit.epochs: [1, 2]", stage="retriever")
        with pytest.raises(InputError, match="--stage 'both' is unknown"):
            read(RATE, stage="both")
        with pytest.raises(InputError, match="cannot be read"):
            read(file=Path("no-such.yaml"))
        assert read("max_history: [20, 50]", stage="retriever").stage == "retriever"


def value_of(params: dict[str, Any]) -> float:
    """Best at a rate of 0.001 and 2 blocks."""
    return -abs(math.log10(params["retriever.fit.learning_rate"]) + 3) - abs(params["retriever.encoder.blocks"] - 2) / 10


def opened(folder: Path, space: Space, *, seed: int = 1, wanted: int = 13) -> Trials:
    folder.mkdir(exist_ok=True)
    return Trials(open_study(folder, {"data": "d"}, pruner("median", 8)), space, seed=seed, wanted=wanted)


def go_on(trials: Trials, most: int | None = None) -> list[dict[str, Any]]:
    """The settings of up to `most` more trials."""
    asked: list[dict[str, Any]] = []
    while len(asked) != most and (trial := trials.ask()) is not None:
        asked.append(dict(trial.params))
        trials.tell(trial, Outcome("complete", value_of(trial.params), 1, 1.0))
    return asked


class TestTrials:
    @pytest.fixture
    def space(self) -> Space:
        return read(RATE, BLOCKS)

    def test_the_same_seed_draws_the_same_also_when_stopped_in_between(self, space: Space, tmp_path: Path) -> None:
        whole = go_on(opened(tmp_path / "whole", space))
        assert len(whole) == 13
        halves = go_on(opened(tmp_path / "halves", space), 6)
        stopped = opened(tmp_path / "halves", space)
        killed = stopped.ask()
        assert killed is not None
        killed.report(0.1, 1)
        again = opened(tmp_path / "halves", space)
        assert again.try_stopped_again() == [6]
        second = go_on(again)
        assert halves + second == whole
        assert go_on(opened(tmp_path / "halves", space)) == []
        assert go_on(opened(tmp_path / "other", space, seed=2), 1) != whole[:1]

        kept = again.study.get_trials()
        assert [trial.state.name for trial in kept].count("FAIL") == 1
        assert sorted(number_of(trial) for trial in counted(kept)) == list(range(6)) + list(range(6, 7)) + list(range(8, 14))
        retried = next(trial for trial in counted(kept) if number_of(trial) == 6)
        assert retried.intermediate_values == {1: 0.1}  # what it said before it was stopped

    def test_it_learns_where_to_look(self, space: Space, tmp_path: Path) -> None:
        trials = opened(tmp_path / "sweep", space, wanted=24)
        values = [value_of(params) for params in go_on(trials)]
        assert sum(values[16:]) / 8 > sum(values[:10]) / 10 + 0.1  # the first ten are random
        best = best_first(trials.study.get_trials())[0]
        assert best.values[0] == max(values)

    def test_every_point_of_a_small_space_is_tried_once(self, tmp_path: Path) -> None:
        space = read(BLOCKS, "retriever.fit.learning_rate: [0.001, 0.01]")
        trials = opened(tmp_path / "sweep", space, wanted=20)
        asked = go_on(trials)
        assert len(asked) == 6
        assert all(point in asked for point in space.points() or [])
        assert len(counted(trials.study.get_trials())) == 6

    def test_trials_that_run_at_once_are_never_more_than_wanted(self, space: Space, tmp_path: Path) -> None:
        trials = opened(tmp_path / "sweep", space, wanted=3)
        given = [trials.ask() for _ in range(5)]
        assert [each is None for each in given] == [False, False, False, True, True]

    def test_a_trial_that_is_lost_is_tried_again_and_then_given_up(self, space: Space, tmp_path: Path) -> None:
        trials = opened(tmp_path / "sweep", space, wanted=1)
        settings = []
        for attempt in range(3):
            trial = trials.ask()
            assert trial is not None
            settings.append(trial.params)
            outcome = trials.lost(trial, "was killed by SIGKILL")
            assert (outcome is None) == (attempt < 2)
        assert settings[0] == settings[1] == settings[2]
        assert outcome is not None
        assert outcome.reason == "its worker was killed by SIGKILL, 3 times: is there enough memory for --workers?"
        assert trials.ask() is None

    def test_a_curve_below_the_others_is_stopped_and_a_validation_is_noted_once(self, space: Space, tmp_path: Path) -> None:
        trials = opened(tmp_path / "sweep", space)
        for _ in range(4):
            good = trials.ask()
            assert good is not None
            assert not any(trials.stops(good, epoch, 0.5) for epoch in range(1, 9))
            trials.tell(good, Outcome("complete", 0.5, 8, 1.0))
        bad = trials.ask()
        assert bad is not None
        assert not trials.stops(bad, 1, 0.1)  # it may have begun slowly
        assert trials.stops(bad, 2, 0.1)
        assert trials.stops(bad, 2, 0.1)
        trials.tell(bad, Outcome("pruned", 0.1, 2, 1.0, "too low"))
        kept = trials.study.get_trials()[-1]
        assert (kept.state.name, kept.user_attrs["reason"]) == ("PRUNED", "too low")

    def test_other_data_or_another_space_is_refused_by_name(self, space: Space, tmp_path: Path) -> None:
        opened(tmp_path / "sweep", space)
        with pytest.raises(InputError, match="was begun with another data: choose another --name, or --anew"):
            open_study(tmp_path / "sweep", {"data": "e"}, pruner("none", 8))
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "optuna.db").write_text("no database")
        with pytest.raises(InputError, match=r"optuna.db cannot be opened .*choose another --name, or --anew"):
            open_study(tmp_path / "broken", {}, pruner("hyperband", 8))
