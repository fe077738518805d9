"""Fashion in the simulated world: off unless it is asked for, stationary, and felt by users and by the logging policy alike."""

from typing import Any

import numpy as np
import pytest

from recsys.simulate import Simulation
from recsys.simulate.days import visited
from recsys.simulate.log import choose
from recsys.simulate.trend import first_trend, in_fashion, next_trend
from recsys.simulate.world import CLICK, TASKS, make_world

SMALL: dict[str, Any] = {"users": 200, "items": 100, "events": 8000, "days": 4, "categories": 5, "seed": 3}


def test_without_a_trend_the_world_stays_as_it_is() -> None:
    spec = Simulation(**SMALL)
    world = make_world(spec)
    assert all(each.world is world for each in visited(spec, world))


def test_who_comes_and_when_does_not_hang_on_fashion() -> None:
    plain, trendy = Simulation(**SMALL), Simulation(**SMALL, trend=1.0)
    pairs = list(zip(visited(plain, make_world(plain)), visited(trendy, make_world(trendy)), strict=True))
    assert len(pairs) == 4
    for one, other in pairs:
        assert np.array_equal(one.user_R, other.user_R)
        assert np.array_equal(one.time_R, other.time_R)
        assert np.array_equal(one.taste_UD, other.taste_UD)
        assert not np.array_equal(one.world.bias_IK, other.world.bias_IK)


def test_fashion_keeps_its_spread_and_forgets_at_its_rate() -> None:
    spec = Simulation(users=10, items=40_000, events=100_000, days=30, trend=0.6, trend_drift=0.2)
    days = [first_trend(spec)]
    for day in range(1, 12):
        days.append(next_trend(spec, days[-1], day))
    for trend_I in days:
        assert trend_I.std() == pytest.approx(0.6, abs=4 * 0.6 / (2 * 40_000) ** 0.5)
        assert trend_I.mean() == pytest.approx(0, abs=4 * 0.6 / 40_000**0.5)
    for lag in (1, 3):
        assert np.corrcoef(days[0], days[lag])[0, 1] == pytest.approx(0.8**lag, abs=0.02)


def test_what_is_in_fashion_is_clicked_and_shown_more() -> None:
    """An item alone in fashion: its click logit rises by as much, other tasks' do not, and the policy shows it more often."""
    spec = Simulation(**(SMALL | {"explore_share": 0.0}))
    world = make_world(spec)
    trend_I = np.zeros(spec.items, np.float32)
    trend_I[17] = 1.5
    today = in_fashion(world, trend_I)
    moved_IK = today.bias_IK - world.bias_IK
    assert moved_IK[17, CLICK] == pytest.approx(1.5, abs=1e-6)
    assert np.count_nonzero(moved_IK) == 1
    assert moved_IK.shape[1] == len(TASKS)
    assert today.mass_C.sum() == pytest.approx(1)
    each = next(visited(spec, world))
    taste_RD = each.taste_UD[each.user_R]
    shown = [
        (choose(spec, there, taste_RD, each.focus_R, np.random.default_rng(1))[0] == 17).mean() for there in (world, today)
    ]
    assert shown[1] > 3 * shown[0] > 0
