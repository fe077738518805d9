"""The world in a loop with a recommender: it says who asks for a page, and answers whatever page they are shown.

Same truth as `simulate`: the same users come at the same moments for the same reasons, with the same tastes and luck. So the
logging policy's own lists earn the very clicks of the simulated log, and two recommenders differ by what they show alone. Who
comes depends on nothing that is shown, and nobody tires of an item. Shapes: R requests (pages) of a part of a day, B some of
them, S slots, N = R * S impressions, I items, U users.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from recsys.simulate.behaviour import FixedLuck, Reaction, attention, react, seen, slip_rate
from recsys.simulate.days import Visits, visited
from recsys.simulate.log import choose, event_rows
from recsys.simulate.settings import Simulation
from recsys.simulate.truth import logging_policy, relevance, true_value
from recsys.simulate.world import Floats, Ints, World

EMPTY = -1  # a place without an item
JUDGED_AT_ONCE = 256  # requests; each is held against all items


@dataclass(frozen=True, eq=False)
class Judged:
    """What pages are truly worth: clicks that are meant, expected over all luck. One value for each page."""

    value_R: Floats  # of what was shown
    best_R: Floats  # of the best list without repetition
    logging_R: Floats  # of what the logging policy would show, on average over its own chance
    uniform_R: Floats  # of items drawn without any preference
    ndcg_R: Floats  # with the true relevance as the gain, against the best list


@dataclass(frozen=True, eq=False)
class Audience:
    """Requests of a part of a day, and what their users would do. Made by `audiences`."""

    spec: Simulation
    world: World
    visits: Visits
    logged_RS: Ints  # what the logging policy shows
    propensity_RS: Floats  # and with which chance
    slip: float  # how often an examined item is clicked by accident: as under the logging policy, whatever is shown
    luck: FixedLuck

    @classmethod
    def of(cls, spec: Simulation, world: World, visits: Visits) -> Self:
        """Goes on with the random numbers of `visits`, and uses them up."""
        taste_RD = visits.taste_UD[visits.user_R]
        logged_RS, propensity_RS = choose(spec, world, taste_RD, visits.focus_R, visits.rng)
        shown = seen(world, taste_RD, visits.user_R, visits.focus_R, logged_RS)
        slip = slip_rate(spec, np.tile(attention(spec), len(logged_RS)), shown.relevance_N)
        return cls(spec, world, visits, logged_RS, propensity_RS, slip, FixedLuck.draw(visits.rng, logged_RS.size))

    def answer(self, row_B: Ints, item_BS: Ints) -> Reaction:
        """What the users of some requests do with their pages; nothing with an EMPTY place. Pages may come in any order."""
        slots = np.arange(self.spec.slots)
        visits, row_N = self.visits, (row_B[:, None] * self.spec.slots + slots).ravel()
        user_B = visits.user_R[row_B]
        shown = seen(self.world, visits.taste_UD[user_B], user_B, visits.focus_R[row_B], item_BS)
        attention_N = np.tile(attention(self.spec), len(row_B)) * (item_BS.ravel() != EMPTY)
        return react(self.world, shown, attention_N, self.slip, self.luck.at(row_N))

    def log(self, item_RS: Ints, propensity_RS: Floats) -> pl.DataFrame:
        """The rows of the log of all pages, as `simulate` writes them, `EMPTY` places left out; a propensity of NaN is null."""
        visits = self.visits
        shown = seen(self.world, visits.taste_UD[visits.user_R], visits.user_R, visits.focus_R, item_RS)
        done = self.answer(np.arange(len(item_RS)), item_RS)
        rows = event_rows(shown, done, propensity_RS.ravel(), visits.time_R, self.spec.slots)
        return rows.with_columns(pl.col("propensity").fill_nan(None)).filter(pl.col("item") != EMPTY)

    def judged(self, item_RS: Ints) -> Judged:
        """The truth about pages that were shown."""
        parts = [
            self._judged(row_B, item_RS[row_B])
            for row_B in np.array_split(np.arange(len(item_RS)), -(-len(item_RS) // JUDGED_AT_ONCE))
        ]
        return Judged(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _judged(self, row_B: Ints, item_BS: Ints) -> tuple[Floats, ...]:
        spec, world, visits = self.spec, self.world, self.visits
        user_B, focus_B = visits.user_R[row_B], visits.focus_R[row_B]
        taste_BD = visits.taste_UD[user_B]
        relevance_BI = relevance(world, taste_BD, user_B, focus_B)
        shown_BS = np.where(item_BS == EMPTY, 0, np.take_along_axis(relevance_BI, np.maximum(item_BS, 0), axis=1))
        places = min(spec.slots, spec.items)
        best_BS = -np.sort(np.partition(-relevance_BI, places - 1, axis=1)[:, :places], axis=1)
        look_S = attention(spec)
        chosen_B = true_value(logging_policy(spec, world, taste_BD, focus_B), relevance_BI)
        uniform_B = relevance_BI.mean(axis=1)
        discount_S = 1 / np.log2(np.arange(spec.slots) + 2)
        ideal_B = best_BS @ discount_S[:places]
        own_B, none_B = chosen_B * look_S.sum(), uniform_B * look_S.sum()
        return shown_BS @ look_S, best_BS @ look_S[:places], own_B, none_B, shown_BS @ discount_S / ideal_B


def audiences(spec: Simulation, world: World, *, first_day: int = 0) -> Iterator[Audience]:
    """Who comes, part by part of each day, from a day on."""
    for each in visited(spec, world):
        if each.day >= first_day:
            yield Audience.of(spec, each.world, each)
