"""A smaller version of benchmarks/significance.py: how often equal systems are said to differ.

Shapes: U = users, S = systems, M = comparisons.
"""

import numpy as np
import pytest

from benchmarks.significance_world import BETTER, better, false_positives, families, heavy, hits, lopsided, ndcg, nominal


def test_where_the_number_of_false_positives_may_lie() -> None:
    assert nominal(1000) == (37, 64)


@pytest.mark.parametrize("users", [100, 1000])
def test_the_verdict_cries_wolf_as_often_as_it_says(users: int) -> None:
    low, high = nominal(400)
    found = false_positives(ndcg, users, 400, seed=1)
    assert low <= found["bootstrap"] <= high
    assert low <= found["t"] <= high


def test_many_users_with_one_value_each_do_no_harm() -> None:
    low, high = nominal(400)
    assert low <= false_positives(hits, 100, 400, seed=2)["bootstrap"] <= high


def test_intervals_hold_a_true_difference() -> None:
    low, high = nominal(400)
    assert low <= false_positives(better, 1000, 400, truth=BETTER, seed=3)["bootstrap"] <= high


def test_a_reference_that_was_chosen_for_being_the_best_needs_the_correction_for_all_pairs() -> None:
    found = families(ndcg, 500, 30, 200, seed=4)
    most = nominal(200)[1]
    assert found["given, uncorrected"] > most
    assert found["the best, Holm over the others"] > most
    assert found["given, Holm"] <= most
    assert found["the best, Holm over all pairs"] <= most


@pytest.mark.parametrize("world", [ndcg, hits, heavy, lopsided])
def test_systems_of_a_null_are_equally_good(world) -> None:
    value_USM = world(20_000, 2, 10, np.random.default_rng(0))
    gap_M = (value_USM[:, 1] - value_USM[:, 0]).mean(0)
    error = (value_USM[:, 1] - value_USM[:, 0]).std() / np.sqrt(value_USM[:, 0].size)
    assert abs(gap_M.mean()) < 4 * error


def test_the_true_difference_is_what_many_users_have() -> None:
    value_USM = better(50_000, 2, 10, np.random.default_rng(0))
    gap = value_USM[:, 1] - value_USM[:, 0]
    assert abs(gap.mean() - BETTER) < 4 * gap.std() / np.sqrt(gap.size)
