"""Items come into fashion and go out of it. Shapes: I items, C categories."""

from dataclasses import replace

import numpy as np

from recsys.simulate.settings import Simulation
from recsys.simulate.world import CLICK, TREND, Floats, World

POLICY_TREND = 2.0  # the logging policy knows what is in fashion, as it knows tastes


def first_trend(spec: Simulation) -> Floats:
    """trend_I of the first day, which adds to the logit of a click: normal, with a standard deviation of `trend`."""
    return spec.trend * np.random.default_rng([TREND, spec.seed, 0]).standard_normal(spec.items, np.float32)


def next_trend(spec: Simulation, trend_I: Floats, day: int) -> Floats:
    """That of the next day: one step of a stationary AR(1), trend' = (1 - trend_drift) trend + noise."""
    keep = 1 - spec.trend_drift
    step_I = np.random.default_rng([TREND, spec.seed, day]).standard_normal(spec.items, np.float32)
    return np.float32(keep) * trend_I + np.float32(spec.trend * (1 - keep**2) ** 0.5) * step_I


def in_fashion(world: World, trend_I: Floats) -> World:
    """The world on a day: what is in fashion is clicked more often, and the logging policy shows it more often."""
    C = len(world.mass_C)
    popularity_I = world.mass_C[world.category_I] * world.within_I * np.exp(POLICY_TREND * trend_I.astype(np.float64))
    popularity_I /= popularity_I.sum()
    mass_C = np.bincount(world.category_I, popularity_I, C).astype(np.float64)
    cumulative_I = np.cumsum(popularity_I[world.by_category_I])
    bias_IK = world.bias_IK.copy()
    bias_IK[:, CLICK] += trend_I
    return replace(
        world, bias_IK=bias_IK, mass_C=mass_C, within_I=popularity_I / mass_C[world.category_I],
        cumulative_I=cumulative_I / cumulative_I[-1],
    )  # fmt: skip
