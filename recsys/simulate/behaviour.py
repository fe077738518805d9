"""What a user does with a page: looks at places, clicks what suits, sometimes by accident, and goes on down the funnel.

Shapes: R pages, S slots of a page, N = R * S impressions, K tasks, D latent dimensions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recsys.simulate.settings import Simulation
from recsys.simulate.world import CLICK, TASKS, Floats, Ints, World

Flags = NDArray[np.bool_]
MAX_DWELL_MS = 3_600_000
DWELL_SPREAD = 0.6  # standard deviation of the logarithm
# Logit of a task = intercept + slope * (affinity + FOCUS_AFFINITY if the item is in focus) + user's bias + item's bias.
# The values give about 18 % clicks, 50 % long views of clicks, 25 % likes of long views and 20 % purchases of likes.
INTERCEPT_K = np.array([-2.2, -1.3, -3.4, -4.3], np.float32)
SLOPE_K = np.array([1.0, 0.8, 0.9, 0.9], np.float32)
FOCUS_AFFINITY = 1.0


class Luck(ABC):
    """Uniform numbers that decide, one for each impression, whether something with a chance happens."""

    examined_N: Floats
    relevant_N: Floats
    accidental_N: Floats

    @abstractmethod
    def later(self, task: int, rows: Ints) -> Floats:
        """Of a task after the click, for some impressions."""

    @abstractmethod
    def dwell(self, rows: Ints) -> Floats:
        """By how much longer than is typical these clicked items are looked at, about 1."""


class DrawnLuck(Luck):
    """Drawn when it is asked for: a log in order of time needs no more numbers than it uses."""

    def __init__(self, rng: np.random.Generator, impressions: int) -> None:
        self._rng = rng
        self.examined_N, self.relevant_N, self.accidental_N = (rng.random(impressions) for _ in range(3))

    def later(self, task: int, rows: Ints) -> Floats:
        return self._rng.random(len(rows))

    def dwell(self, rows: Ints) -> Floats:
        return self._rng.lognormal(0, DWELL_SPREAD, len(rows))


@dataclass(frozen=True, eq=False)
class FixedLuck(Luck):
    """Drawn beforehand, so that it is the same whatever is shown and in whatever order pages are answered."""

    examined_N: Floats
    relevant_N: Floats
    accidental_N: Floats
    later_KN: Floats
    dwell_N: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, impressions: int) -> Self:
        """Begins with the numbers that `DrawnLuck` begins with, so that both give the same clicks for the same items."""
        examined_N, relevant_N, accidental_N = (rng.random(impressions) for _ in range(3))
        later_KN = rng.random((len(TASKS), impressions))
        return cls(examined_N, relevant_N, accidental_N, later_KN, rng.lognormal(0, DWELL_SPREAD, impressions))

    def at(self, rows: Ints) -> "FixedLuck":
        """Of some impressions."""
        first = (self.examined_N[rows], self.relevant_N[rows], self.accidental_N[rows])
        return FixedLuck(*first, self.later_KN[:, rows], self.dwell_N[rows])

    def later(self, task: int, rows: Ints) -> Floats:
        return self.later_KN[task, rows]

    def dwell(self, rows: Ints) -> Floats:
        return self.dwell_N[rows]


@dataclass(frozen=True, eq=False)
class Impressions:
    """Who sees what: rows of the user and item tables, and how well they suit."""

    user_N: Ints
    item_N: Ints
    affinity_N: Floats
    relevance_N: Floats  # chance that whoever looks means to click


@dataclass(frozen=True, eq=False)
class Reaction:
    """What was done. `accidental_N` and `examined_N` are known to nobody but the world."""

    label_KN: Ints
    dwell_N: Ints  # milliseconds; 0 where it was not clicked
    examined_N: Flags
    accidental_N: Flags


def seen(world: World, taste_RD: Floats, user_R: Ints, focus_R: Ints, item_RS: Ints) -> Impressions:
    """The impressions of pages, page by page."""
    affinity_RS = np.einsum("rd,rsd->rs", taste_RD, world.latent_ID[item_RS]) / np.float32(world.latent_ID.shape[1] ** 0.5)
    affinity_RS += np.float32(FOCUS_AFFINITY) * (world.category_I[item_RS] == focus_R[:, None])
    user_N, item_N, affinity_N = np.repeat(user_R, item_RS.shape[1]), item_RS.ravel(), affinity_RS.ravel()
    bias_N = world.bias_UK[user_N, CLICK] + world.bias_IK[item_N, CLICK]
    return Impressions(user_N, item_N, affinity_N, task_chance(CLICK, affinity_N, bias_N))


def attention(spec: Simulation) -> Floats:
    """attention_S: the chance that a place is looked at."""
    return np.arange(1.0, spec.slots + 1) ** -spec.position_decay


def slip_rate(spec: Simulation, attention_N: Floats, relevance_N: Floats) -> float:
    """Share of the examined but irrelevant impressions clicked by accident, that makes `accidental_share` of all clicks."""
    odds = spec.accidental_share / (1 - spec.accidental_share)
    meant, other = np.sum(attention_N * relevance_N, dtype=float), np.sum(attention_N * (1 - relevance_N), dtype=float)
    return float(odds * meant / other)


def react(world: World, shown: Impressions, attention_N: Floats, slip: float, luck: Luck) -> Reaction:
    """What users do. `slip`: see `slip_rate`."""
    user_N, item_N = shown.user_N, shown.item_N
    examined_N = luck.examined_N < attention_N
    relevant_N = luck.relevant_N < shown.relevance_N
    accidental_N = examined_N & ~relevant_N & (luck.accidental_N < slip)
    label_KN = np.zeros((len(TASKS), len(user_N)), np.int8)
    label_KN[CLICK] = examined_N & relevant_N
    for task in range(1, len(TASKS)):
        rows = np.flatnonzero(label_KN[task - 1])
        bias_N = world.bias_UK[user_N[rows], task] + world.bias_IK[item_N[rows], task]
        label_KN[task, rows] = luck.later(task, rows) < task_chance(task, shown.affinity_N[rows], bias_N)
    label_KN[CLICK] |= accidental_N

    clicked = np.flatnonzero(label_KN[CLICK])
    typical_ms = np.where(label_KN[1, clicked], 60_000.0, np.where(accidental_N[clicked], 2_000.0, 8_000.0))
    dwell_N = np.zeros(len(user_N), np.int32)
    dwell_N[clicked] = np.minimum(typical_ms * luck.dwell(clicked), MAX_DWELL_MS)
    return Reaction(label_KN, dwell_N, examined_N, accidental_N)


def task_chance(task: int, affinity_N: Floats, bias_N: Floats) -> Floats:
    """chance_N that whoever looks at an item means to do this; of a later task, after the one before it."""
    return 1 / (1 + np.exp(-(INTERCEPT_K[task] + SLOPE_K[task] * affinity_N + bias_N)))
