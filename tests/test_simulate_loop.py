"""The world that answers pages, against the log that it writes by itself. Shapes: K tasks, R requests, S slots, I items."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.simulate import Simulation, simulate
from recsys.simulate.files import Files
from recsys.simulate.loop import EMPTY, Audience, audiences
from recsys.simulate.truth import relevance
from recsys.simulate.world import TASKS, make_world

SMALL: dict[str, Any] = {"users": 200, "items": 100, "events": 8000, "days": 4, "categories": 5, "seed": 3, "drift": 0.2}
SPEC = Simulation(**SMALL)


@pytest.fixture(scope="module")
def parts() -> list[Audience]:
    return list(audiences(SPEC, make_world(SPEC)))


@pytest.mark.parametrize("trend", [0.0, 0.8])
def test_the_logging_policy_in_the_loop_writes_the_simulated_log(tmp_path: Path, trend: float) -> None:
    """Every row, click and propensity is the same, whatever the number of clicks before it."""
    spec = Simulation(**SMALL, trend=trend)
    simulate(spec, tmp_path / "raw")
    files = Files(spec, make_world(spec))
    for part in audiences(spec, files.world):
        looped = files.named(part.log(part.logged_RS, part.propensity_RS), part.visits)
        written = pl.read_parquet(tmp_path / "raw" / files.part(part.visits))
        rows = [name for name in written.columns if name not in ("long_view", "like", "purchase", "dwell_ms")]
        assert looped.select(rows).equals(written.select(rows))
        assert looped.schema == written.schema


def test_what_follows_a_click_is_as_frequent_as_in_the_simulated_log(tmp_path: Path) -> None:
    """Later tasks have other luck of the same chance: their rates agree within five standard errors."""
    spec = Simulation(**(SMALL | {"events": 400_000, "days": 2}))
    simulate(spec, tmp_path / "raw")
    written = pl.read_parquet(tmp_path / "raw/events")
    looped = pl.concat([part.log(part.logged_RS, part.propensity_RS) for part in audiences(spec, make_world(spec))])
    for before, task in pairwise(TASKS):
        rates = [log.filter(pl.col(before) == 1)[task].mean() for log in (written, looped)]
        count = int(written[before].sum())
        assert rates[0] == pytest.approx(rates[1], abs=5 * (2 * rates[0] * (1 - rates[0]) / count) ** 0.5)
    logs = [np.log(log["dwell_ms"].drop_nulls().to_numpy()) for log in (written, looped)]
    assert logs[0].mean() == pytest.approx(logs[1].mean(), abs=5 * logs[0].std() * (2 / len(logs[0])) ** 0.5)


def test_pages_are_answered_alike_one_by_one_in_any_order(parts: list[Audience]) -> None:
    part, rng = parts[1], np.random.default_rng(0)
    item_RS = rng.integers(SPEC.items, size=part.logged_RS.shape)
    whole = part.answer(np.arange(len(item_RS)), item_RS)
    label_KRS = whole.label_KN.reshape(len(TASKS), len(item_RS), SPEC.slots)
    assert label_KRS.sum(axis=(1, 2)).all()
    for row in rng.permutation(len(item_RS)):
        alone = part.answer(np.array([row]), item_RS[[row]])
        assert np.array_equal(alone.label_KN, label_KRS[:, row])
        assert np.array_equal(alone.dwell_N, whole.dwell_N.reshape(-1, SPEC.slots)[row])


def test_days_come_the_same_from_any_day_on(parts: list[Audience]) -> None:
    late = list(audiences(SPEC, make_world(SPEC), first_day=2))
    assert [part.visits.day for part in late] == [2, 3]
    for part, again in zip(parts[2:], late, strict=True):
        assert np.array_equal(part.logged_RS, again.logged_RS)
        assert np.array_equal(part.luck.later_KN, again.luck.later_KN)
        assert np.array_equal(part.visits.taste_UD, again.visits.taste_UD)


def test_the_truth_of_lists_by_hand(parts: list[Audience]) -> None:
    part = parts[0]
    visits, rows = part.visits, len(part.logged_RS)
    relevance_RI = relevance(part.world, visits.taste_UD[visits.user_R], visits.user_R, visits.focus_R)
    best_RS = np.argsort(-relevance_RI, axis=1)[:, : SPEC.slots]
    best = part.judged(best_RS)
    assert np.allclose(best.value_R, best.best_R)
    assert np.allclose(best.ndcg_R, 1)
    look_S = (np.arange(SPEC.slots) + 1.0) ** -0.5
    by_hand = sum(look_S[s] * relevance_RI[7, best_RS[7, s]] for s in range(SPEC.slots))
    assert best.value_R[7] == pytest.approx(by_hand, rel=1e-6)
    worse = part.judged(best_RS[:, ::-1])
    assert (worse.value_R < best.value_R).all()
    assert (worse.ndcg_R < 1).all()
    assert part.judged(np.full((rows, SPEC.slots), EMPTY)).value_R.max() == 0
    random = part.judged(np.random.default_rng(0).integers(SPEC.items, size=best_RS.shape))
    assert random.value_R.mean() < best.logging_R.mean() < best.best_R.mean()
    assert random.value_R.mean() == pytest.approx(random.uniform_R.mean(), abs=4 * random.value_R.std() / rows**0.5)


def test_value_is_the_rate_of_meant_clicks_of_a_policy_that_is_not_the_log_s() -> None:
    """Expected clicks against clicks that happened, for lists of popular items; accidents are off."""
    spec = Simulation(**(SMALL | {"events": 300_000, "accidental_share": 0.0}))
    found = []
    for part in audiences(spec, make_world(spec)):
        popular_S = np.argsort(-part.world.within_I * part.world.mass_C[part.world.category_I])[: spec.slots]
        item_RS = np.tile(popular_S, (len(part.logged_RS), 1))
        clicks_RS = part.answer(np.arange(len(item_RS)), item_RS).label_KN[0].reshape(item_RS.shape)
        found.append(np.stack([clicks_RS.sum(1), part.judged(item_RS).value_R]))
    clicks_R, value_R = np.concatenate(found, axis=1)
    assert clicks_R.mean() == pytest.approx(value_R.mean(), abs=4 * clicks_R.std() / len(clicks_R) ** 0.5)
    assert np.corrcoef(clicks_R, value_R)[0, 1] > 0.1


def test_empty_places_are_not_in_the_log_and_earn_nothing(parts: list[Audience]) -> None:
    part = parts[0]
    item_RS = part.logged_RS.copy()
    item_RS[:, 4:] = EMPTY
    propensity_RS = np.full(item_RS.shape, np.nan)
    rows = part.log(item_RS, propensity_RS)
    assert rows.height == 4 * len(item_RS)
    assert rows["slot"].unique().sort().to_list() == [0, 1, 2, 3]
    assert rows["propensity"].null_count() == rows.height
    whole = part.log(part.logged_RS, part.propensity_RS)
    assert rows.drop("propensity").equals(whole.filter(pl.col("slot") < 4).drop("propensity"))
