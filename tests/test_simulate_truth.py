"""The truth about policies in the simulated world, against its own log. Shapes: R requests, I items, N impressions."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.simulate import Simulation, simulate
from recsys.simulate.days import visited
from recsys.simulate.truth import logging_policy, relevance, true_value
from recsys.simulate.world import make_world

SMALL: dict[str, Any] = {"users": 60, "items": 40, "events": 6000, "days": 3, "categories": 5, "seed": 3}


@pytest.mark.parametrize("trend", [0.0, 0.8])
def test_the_truth_agrees_with_every_row_of_the_log(tmp_path: Path, trend: float) -> None:
    """Relevance and propensity of what was shown, item by item, and each policy adds up to 1."""
    spec = Simulation(**SMALL, trend=trend, trend_drift=0.3)
    world = make_world(spec)
    simulate(spec, tmp_path / "raw")
    for each in visited(spec, world):
        part = f"day={spec.start_date.replace(day=1 + each.day)}/part-0.parquet"
        log, truth = (pl.read_parquet(tmp_path / "raw" / folder / part) for folder in ("events", "truth/events"))
        row_N = log["request_id"].to_numpy() - each.page
        item_N = log["item_id"].str.strip_prefix("i").cast(pl.Int64).to_numpy()
        taste_RD = each.taste_UD[each.user_R]
        relevance_RI = relevance(each.world, taste_RD, each.user_R, each.focus_R)
        prob_RI = logging_policy(spec, each.world, taste_RD, each.focus_R)
        assert np.allclose(relevance_RI[row_N, item_N], truth["relevance"], rtol=1e-5)
        assert np.allclose(prob_RI[row_N, item_N], log["propensity"], rtol=1e-5)
        assert np.allclose(prob_RI.sum(1), 1)
        assert (log["user_id"].str.strip_prefix("u").cast(pl.Int64).to_numpy() == each.user_R[row_N]).all()
        assert (log["time_ms"].to_numpy() == each.time_R[row_N] + each.start_ms).all()


def test_the_value_of_the_logging_policy_is_its_rate_of_clicks_in_the_first_place(tmp_path: Path) -> None:
    spec = Simulation(**(SMALL | {"events": 300_000, "accidental_share": 0.0}))
    world = make_world(spec)
    simulate(spec, tmp_path / "raw")
    clicks = pl.scan_parquet(tmp_path / "raw/events/**/*.parquet").filter(pl.col("slot") == 0).collect()["click"].to_numpy()
    values = []
    for each in visited(spec, world):
        taste_RD = each.taste_UD[each.user_R]
        prob_RI = logging_policy(spec, world, taste_RD, each.focus_R)
        values.append(true_value(prob_RI, relevance(world, taste_RD, each.user_R, each.focus_R)))
    value_R = np.concatenate(values)
    assert clicks.mean() == pytest.approx(value_R.mean(), abs=4 * (0.25 / len(clicks)) ** 0.5)
    assert len(clicks) == len(value_R)


def test_by_hand() -> None:
    value_R = true_value(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([[0.2, 0.4], [0.9, 0.1]]))
    assert value_R.tolist() == pytest.approx([0.3, 0.1])
    with pytest.raises(ValueError, match="add up to"):
        true_value(np.array([[0.5, 0.1]]), np.array([[0.2, 0.4]]))
