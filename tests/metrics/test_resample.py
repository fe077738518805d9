"""Users drawn anew. Shapes: U = users, R = draws, M = columns."""

import numpy as np
import pytest

from recsys.metrics import resample
from recsys.metrics.resample import draw_users, drawn_user_means


def test_users_are_drawn_with_replacement() -> None:
    times_RU = draw_users(7, 100, np.random.default_rng(0))
    assert (times_RU.sum(1) == 7).all()
    assert times_RU.max() > 1
    # each is left out of a draw with chance (6/7)^7 = .34
    assert (times_RU == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.05)


def test_means_are_those_of_the_draws() -> None:
    value_UM = 1000 + np.random.default_rng(3).normal(size=(50, 2))
    times_RU = draw_users(50, 400, np.random.default_rng(0))
    mean_RM = drawn_user_means(value_UM, 400, np.random.default_rng(0))
    np.testing.assert_allclose(mean_RM, times_RU @ value_UM / 50, atol=1e-7)


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_RU = draw_users(9, 20, np.random.default_rng(0))
    monkeypatch.setattr(resample, "CELLS_AT_ONCE", 30)  # three draws at once
    np.testing.assert_array_equal(draw_users(9, 20, np.random.default_rng(0)), whole_RU)


def test_what_all_users_share_does_not_move() -> None:
    assert drawn_user_means(np.full((5, 1), 0.1), 20, np.random.default_rng(0)).tolist() == [[0.1]] * 20
