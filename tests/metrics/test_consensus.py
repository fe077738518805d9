"""Hand-worked votes. Shapes: T = tasks, S = systems, U = users."""

import numpy as np
import pytest

from recsys.metrics.consensus import borda, one_level, order, two_level


def test_one_task_with_a_wide_scale_sways_the_mean_and_not_the_count() -> None:
    # a wins two tasks of three by a little, c wins the third by a lot: ranks a 3, 3, 1; b 2, 2, 2; c 1, 1, 3
    score_TS = np.array([[0.32, 0.31, 0.30], [0.52, 0.51, 0.50], [0.10, 0.20, 0.90]])
    assert borda(score_TS).tolist() == [4, 3, 2]
    assert order(borda(score_TS), score_TS.mean(0)) == [0, 1, 2]
    assert order(score_TS.mean(0), score_TS.mean(0)) == [2, 1, 0]


def test_systems_that_tie_share_their_rank() -> None:
    # first task: ranks 1.5, 1.5, 3; second: all 2; less one each
    assert borda(np.array([[0.0, 0.0, 1.0], [0.5, 0.5, 0.5]])).tolist() == [1.5, 1.5, 3.0]


def test_a_task_with_many_users_outvotes_the_others_on_one_level_only() -> None:
    many_US = np.tile([0.2, 0.1], (10, 1))  # the first is better for all ten users
    few_US = np.tile([0.0, 0.4], (2, 1))  # the second is better for both, in two tasks
    assert one_level([many_US, few_US, few_US]).tolist() == [10, 4]
    assert two_level([many_US, few_US, few_US]).tolist() == [1, 2]


def test_users_outvote_the_mean_of_a_task() -> None:
    score_US = np.array([[0.1, 0.0], [0.1, 0.0], [0.0, 1.0]])
    assert two_level([score_US]).tolist() == [1, 0]
    assert borda(score_US.mean(0, keepdims=True)).tolist() == [0, 1]


def test_the_scale_of_a_task_does_not_matter() -> None:
    score_TS = np.random.default_rng(0).normal(size=(5, 4))
    assert borda(np.exp(3 * score_TS)).tolist() == borda(score_TS).tolist()
    assert borda(score_TS).sum() == 5 * (0 + 1 + 2 + 3)


def test_equal_points_are_ordered_by_the_mean() -> None:
    assert order(np.array([1.0, 1.0, 2.0]), np.array([0.1, 0.3, 0.0])) == [2, 1, 0]


def test_a_missing_score_is_refused() -> None:
    with pytest.raises(ValueError, match="every system needs a score on every task"):
        borda(np.array([[0.1, np.nan]]))
