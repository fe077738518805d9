"""Users drawn anew count as often as drawn. Shapes: N = rows, U = users, R = draws, S = seeds."""

import numpy as np
import pytest

from recsys.metrics import paired
from recsys.metrics.classification import auc, gauc


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


def test_a_mean_over_rows_counts_the_rows_of_a_user_as_often_as_the_user_is_drawn() -> None:
    value_N, user_N = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
    # once each: (1 + 2 + 6) / 3; the first twice: 6 / 4; the second twice: 12 / 2; nobody who has a row: none
    times_RU = np.array([[1, 1, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]])
    np.testing.assert_allclose(paired.drawn_mean(value_N, user_N, times_RU), [3.0, 1.5, 6.0, np.nan])
