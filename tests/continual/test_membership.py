"""The membership attack and its matching, on hand-worked numbers and against scikit-learn's AUC rule."""

import numpy as np
import pytest

from recsys.continual.membership import attack, gain, matched


def test_the_auc_counts_pairs_and_ties_half() -> None:
    found = attack(np.array([3.0, 1.0]), np.array([0.0, 1.0, 2.0]))
    assert found.auc == pytest.approx((3 + 1.5) / 6)
    assert (found.members, found.others) == (2, 3)


def test_groups_that_are_told_apart_always_or_never() -> None:
    assert attack(np.arange(5) + 10.0, np.arange(5.0)).auc == 1
    assert attack(np.ones(5), np.ones(5)).auc == 0.5


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = 0.7602  # of two normals of width 1 that lie 1 apart: Phi(1 / sqrt 2)
    found = [attack(rng.normal(1, 1, 60), rng.normal(0, 1, 90)) for _ in range(400)]
    inside = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.91 <= inside <= 0.98


def test_one_user_has_an_auc_but_no_interval() -> None:
    assert attack(np.array([1.0]), np.array([0.0, 2.0]))[:3] == (0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="users in each group"):
        attack(np.empty(0), np.ones(3))


def test_the_gain_is_over_the_baseline() -> None:
    assert gain(np.array([1.0]), np.array([3.0])).tolist() == [2.0]


def test_controls_are_as_active_as_the_members() -> None:
    count_O = np.array([100, 2, 50, 3, 9, 10])
    found = matched(np.array([2, 10]), count_O, each=2, rng=np.random.default_rng(0))
    assert sorted(count_O[found].tolist()) == [2, 3, 9, 10]
    assert len(matched(np.array([5, 5, 5]), np.array([5]), each=2, rng=np.random.default_rng(0))) == 1
