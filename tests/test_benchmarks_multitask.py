"""The comparison of ways to share: users drawn anew count as often as drawn, and a killed comparison goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import paired
from benchmarks.multitask import _name
from recsys.metrics.classification import auc, gauc
from recsys.simulate import Simulation, simulate

ROOT = Path(__file__).parents[1]


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, labels and users of 60 rows."""
    random = np.random.default_rng(seed)
    user_N = np.unique(random.integers(0, 9, 60), return_inverse=True)[1]
    return random.integers(0, 12, 60) / 10, random.integers(0, 2, 60).astype(float), user_N


def test_everybody_drawn_once_gives_the_metric_itself() -> None:
    score_N, label_N, user_N = rows()
    once_RU = np.ones((1, user_N.max() + 1), int)
    assert paired.drawn_auc(score_N, label_N, user_N, once_RU)[0] == pytest.approx(auc(score_N, label_N))
    assert paired.drawn_gauc(score_N, label_N, user_N, once_RU)[0] == pytest.approx(gauc(score_N, label_N, user_N))


def test_a_user_drawn_twice_counts_as_two_users_with_the_same_rows() -> None:
    score_N, label_N, user_N = rows()
    times_U = np.random.default_rng(1).integers(0, 3, user_N.max() + 1)
    again = [(row, copy) for row in range(len(user_N)) for copy in range(times_U[user_N[row]])]
    row_M, copy_M = np.array(again).T
    twin_M = user_N[row_M] * 10 + copy_M
    drawn = paired.drawn_auc(score_N, label_N, user_N, times_U[None])[0]
    assert drawn == pytest.approx(auc(score_N[row_M], label_N[row_M]))
    drawn = paired.drawn_gauc(score_N, label_N, user_N, times_U[None])[0]
    assert drawn == pytest.approx(gauc(score_N[row_M], label_N[row_M], twin_M))


def test_a_draw_without_both_classes_has_no_metric() -> None:
    score_N, label_N, user_N = np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 1.0]), np.array([0, 0, 1])
    times_RU = np.array([[1, 1], [0, 2]])
    np.testing.assert_array_equal(paired.drawn_auc(score_N, label_N, user_N, times_RU), [1.0, np.nan])
    np.testing.assert_array_equal(paired.drawn_gauc(score_N, label_N, user_N, times_RU), [1.0, np.nan])


def test_users_are_drawn_with_replacement() -> None:
    times_RU = paired.draw_users(7, 100, np.random.default_rng(0))
    assert (times_RU.sum(1) == 7).all()
    assert times_RU.max() > 1


@pytest.mark.parametrize(
    ("a_S", "drawn", "shown"),
    [
        ([0.8, 0.9], [0.2, 0.3], True),
        ([0.8, 0.9], [-0.1, 0.3], False),  # with other users it may be the other way round
        ([0.6, 0.9], [0.2, 0.3], False),  # and so it may with other seeds: 0.6 is below the other's 0.65
        ([0.4, 0.5], [-0.3, -0.2], True),
    ],
)
def test_a_difference_is_shown_where_users_and_seeds_agree(a_S: list[float], drawn: list[float], shown: bool) -> None:
    b_S, zero_SR = np.array([0.6, 0.65]), np.zeros((2, 2))
    found = paired.difference(np.array(a_S), b_S, np.array([drawn, drawn]), zero_SR)
    assert found.shown is shown
    assert found.mean == pytest.approx(np.mean(a_S) - 0.625)
    assert min(drawn) <= found.low <= found.high <= max(drawn)


def test_a_way_is_named_by_its_kind_unless_another_has_the_same() -> None:
    esmm, wide = "{kind: esmm, given: {buy: click}}", "{kind: mmoe, experts: 8}"
    assert [_name(each, ["mmoe", esmm]) for each in ("mmoe", esmm)] == ["mmoe", "esmm"]
    assert [_name(each, ["mmoe", wide]) for each in ("mmoe", wide)] == ["mmoe", wide]


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    simulate(Simulation(users=60, items=40, events=4000, days=10), tmp_path / "raw")
    code = "import pathlib, sys; from benchmarks import measure; measure.OUT = pathlib.Path(sys.argv.pop(1))"
    code += "; from benchmarks.multitask import main; main()"
    options = ["--data", str(tmp_path / "raw"), "--config", "demo", "--seeds", "1", "--sharing", "shared_bottom", "ple"]
    options += ["--set", "ranker.fit.epochs=1", "--threads", "1", "--replicates", "20"]

    def compare() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path), *options]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    first = compare()
    found = json.loads((tmp_path / "multitask-demo.json").read_text())
    assert json.loads(first.stdout.splitlines()[-1]) == found
    assert "difference" not in found["tasks"]["click"]["AUC"]["shared_bottom"]
    gap = found["tasks"]["click"]["AUC"]["ple"]["difference"]
    assert gap["low"] <= gap["mean"] <= gap["high"]
    assert found["ways"]["ple"]["dense_parameters"] > found["ways"]["shared_bottom"]["dense_parameters"]
    runs = sorted((tmp_path / "multitask" / "demo" / "runs").glob("*.json"))
    assert len(runs) == 2
    runs[0].unlink()  # as if killed in this run
    second = compare()
    assert second.stderr.count("done before") == 1
    assert json.loads((tmp_path / "multitask-demo.json").read_text())["tasks"] == found["tasks"]
