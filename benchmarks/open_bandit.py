"""Open Bandit, men's campaign: the value of one policy by the log of the other, and what the other's own log says it was.

`random` filled three places of a page uniformly, `bts` by Thompson sampling, at the same time in the same shop. Its chances
changed while it learned, so `bts` counts as the mean of what it was: by item and place, the share of its rows. (The mean of the
logged propensities is something else: an item is in the log when its chance is high, so they are too high and add up to some 2.
Their harmonic mean is free of that: the mean of 1 / p among rows that p brought there is 1 over the mean of p.)
Saito et al. 2021, https://arxiv.org/abs/2008.07146. Shapes: N = rows, I = items, S = places.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recsys.errors import InputError
from recsys.metrics.off_policy import Estimator, Logged, support
from recsys.metrics.off_policy.intervals import bootstrap, normal
from recsys.metrics.off_policy.outcome import cross_fitted

NAMES = ("random", "bts")


class Rows(NamedTuple):
    item_N: np.ndarray
    place_N: np.ndarray
    click_N: np.ndarray
    propensity_N: np.ndarray


def read(folder: Path) -> dict[str, Rows]:
    logs = {}
    for name in NAMES:
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(f"{folder} holds no {name}.parquet: --data names the folder of Open Bandit's men's campaign")
        table = pl.read_parquet(path)
        columns = [table[column].to_numpy() for column in ("item_id", "position", "click", "propensity_score")]
        logs[name] = Rows(columns[0], columns[1] - 1, columns[2].astype(float), columns[3])
    return logs


def shares(log: Rows, items: int) -> np.ndarray:
    """prob_SI, how often the policy showed each item in each place."""
    count_SI = np.zeros((int(log.place_N.max()) + 1, items))
    np.add.at(count_SI, (log.place_N, log.item_N), 1)
    return count_SI / count_SI.sum(1, keepdims=True)


def mean_propensities(log: Rows, items: int, *, harmonic: bool) -> np.ndarray:
    """prob_SI by the mean of the logged propensities, which need not add up to 1."""
    sum_SI, rows_SI = np.zeros((2, int(log.place_N.max()) + 1, items))
    np.add.at(rows_SI, (log.place_N, log.item_N), 1)
    np.add.at(sum_SI, (log.place_N, log.item_N), 1 / log.propensity_N if harmonic else log.propensity_N)
    return np.divide(rows_SI, sum_SI, where=rows_SI > 0, out=sum_SI) if harmonic else sum_SI / np.maximum(rows_SI, 1)


def compared(folder: Path, estimators: dict[str, Estimator]) -> list[dict[str, Any]]:
    """One entry for each direction: the value of `policy` by the log of the other one, beside its own mean reward."""
    logs = read(folder)
    items = 1 + max(int(log.item_N.max()) for log in logs.values())
    found = []
    for policy, logger in (NAMES[::-1], NAMES):
        log, own = logs[logger], logs[policy]
        prob_SI = shares(own, items) if policy == "bts" else np.full((3, items), 1 / items)
        logged = _with_model(log, prob_SI, items)
        truth = own.click_N.mean(), own.click_N.std(ddof=1) / len(own.click_N) ** 0.5
        entry = {
            "policy": policy, "logger": logger, "truth": truth[0], "truth_error": truth[1], "logger_mean": log.click_N.mean(),
            "support": support(logged)._asdict(), "estimates": {},
            "propensity_sums": {
                name: mean_propensities(own, items, harmonic=harmonic).sum(1).tolist()
                for name, harmonic in (("mean", False), ("harmonic mean", True))
            },
        }  # fmt: skip
        for name, estimator in estimators.items():
            terms = estimator(logged)
            by_formula = normal(terms, logged.cluster_N)
            drawn = bootstrap(terms, logged.cluster_N, rng=np.random.default_rng(0))
            gap = (by_formula.value - truth[0]) / np.hypot(by_formula.error, truth[1])
            entry["estimates"][name] = {**by_formula._asdict(), "drawn": [drawn.low, drawn.high], "gap": gap}
        found.append(entry)
    return found


def _with_model(log: Rows, prob_SI: np.ndarray, items: int) -> Logged:
    """Rows are their own clusters: the log names no user."""
    model = cross_fitted(
        log.click_N, log.place_N, log.item_N, np.arange(len(log.item_N)), num_items=items, rng=np.random.default_rng(0)
    )
    return Logged(
        log.click_N, log.propensity_N, prob_SI[log.place_N, log.item_N],
        predicted_N=model.predicted(log.place_N, log.item_N),
        direct_N=model.direct(log.place_N, model.lifts(prob_SI), log.place_N),
    )  # fmt: skip
