"""Who asks for a page, day by day. Shapes: U users, R requests (pages) of a chunk, D latent dimensions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time

import numpy as np

from recsys.simulate.log import visits
from recsys.simulate.settings import DAY_MS, Simulation
from recsys.simulate.trend import first_trend, in_fashion, next_trend
from recsys.simulate.world import CHUNK, Floats, Ints, World, drifted, first_tastes

CHUNK_IMPRESSIONS = 500_000  # rows of one part file
CHUNK_CELLS = 5_000_000  # requests x categories held at once


@dataclass(frozen=True)
class Visits:
    """Requests of a part of a day, in order of time. `rng` then goes on to draw what is shown and done."""

    day: int
    chunk: int
    chunks: int  # of the day
    page: int  # how many came before
    start_ms: int
    taste_UD: Floats
    user_R: Ints
    focus_R: Ints  # the category that the visit is about
    time_R: Ints  # after start_ms
    rng: np.random.Generator
    world: World  # on this day


def first_moment(spec: Simulation) -> int:
    return int(datetime.combine(spec.start_date, time(), UTC).timestamp()) * 1000


def visited(spec: Simulation, world: World) -> Iterator[Visits]:
    """Each chunk has its own random stream, so that the same settings give the same requests."""
    pages = spec.events // spec.slots
    taste_UD, trend_I, today = first_tastes(spec, world), first_trend(spec), world
    for day in range(spec.days):
        taste_UD = drifted(spec, world, taste_UD, day) if day else taste_UD
        if spec.trend:
            trend_I = next_trend(spec, trend_I, day) if day else trend_I
            today = in_fashion(world, trend_I)
        page, last = pages * day // spec.days, pages * (day + 1) // spec.days
        chunks = -(-(last - page) // _chunk_requests(spec))
        for chunk in range(chunks):
            requests = (last - page) // (chunks - chunk)
            begin_ms, end_ms = (DAY_MS * n // chunks for n in (chunk, chunk + 1))
            rng = np.random.default_rng([CHUNK, spec.seed, day, chunk])
            pages_R = visits(spec, world, taste_UD, requests, end_ms - begin_ms, rng)
            moment = first_moment(spec) + day * DAY_MS + begin_ms
            yield Visits(day, chunk, chunks, page, moment, taste_UD, *pages_R, rng, today)
            page += requests


def _chunk_requests(spec: Simulation) -> int:
    return max(1, min(CHUNK_IMPRESSIONS // spec.slots, CHUNK_CELLS // spec.categories))
