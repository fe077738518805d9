"""A world with known truth: users whose tastes drift, a logging policy with exact propensities, clicks with position bias.

The log is what a real service would have kept; `truth/` beside it is what no service ever knows, and training never reads it.
Days are simulated in order, each in chunks of bounded size with their own random stream, so memory does not grow with events
and the same settings give the same bytes.
"""

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from recsys.artefact import write_artefact
from recsys.simulate.log import impressions, visits
from recsys.simulate.settings import DAY_MS, Simulation
from recsys.simulate.tables import ids, item_table, lists, user_table
from recsys.simulate.world import CHUNK, TASKS, drifted, first_tastes, make_world

__all__ = ["Simulation", "simulate"]

CHUNK_IMPRESSIONS = 500_000  # rows of one part file
CHUNK_CELLS = 5_000_000  # requests x categories held at once


def simulate(spec: Simulation, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the world as a "raw" artefact; `progress(events done, events in all)` is called after every part file.

    events/day=YYYY-MM-DD/part-N.parquet   a row per impression, in order of time; part files read in order of their names
    users.parquet, items.parquet           what the service knows of them
    truth/                                 what it does not: truth/events is aligned with events file by file, row by row
    """
    pages = spec.events // spec.slots
    first_ms = int(datetime.combine(spec.start_date, time(), UTC).timestamp()) * 1000
    world = make_world(spec)
    user_id, item_id = ids("u", spec.users), ids("i", spec.items)
    labels = dict.fromkeys(TASKS, 0)
    rows = {"events": pages * spec.slots, "users": spec.users, "items": spec.items}
    with write_artefact(folder, "raw", config=spec.model_dump(mode="json"), rows=rows, labels=labels) as (scratch, _):
        _write(item_table(spec, world, item_id, first_ms), scratch / "items.parquet")
        _write(user_table(spec, world, user_id), scratch / "users.parquet")
        biases = {f"bias_{task}": world.bias_IK[:, k] for k, task in enumerate(TASKS)}
        _write(pl.DataFrame({"item_id": item_id, "latent": lists(world.latent_ID), **biases}), scratch / "truth/items.parquet")
        taste_UD = first_UD = first_tastes(spec, world)
        for day in range(spec.days):
            taste_UD = drifted(spec, world, taste_UD, day) if day else taste_UD
            partition = f"events/day={spec.start_date + timedelta(days=day)}"
            page, last = pages * day // spec.days, pages * (day + 1) // spec.days
            chunks = -(-(last - page) // _chunk_requests(spec))
            for chunk in range(chunks):
                requests = (last - page) // (chunks - chunk)
                start_ms, end_ms = (first_ms + day * DAY_MS + DAY_MS * n // chunks for n in (chunk, chunk + 1))
                rng = np.random.default_rng([CHUNK, spec.seed, day, chunk])
                pages_R = visits(spec, world, taste_UD, requests, end_ms - start_ms, rng)
                events, truth = impressions(spec, world, taste_UD, *pages_R, rng)
                events = events.select(
                    user_id.gather(events["user"]).alias("user_id"),
                    item_id.gather(events["item"]).alias("item_id"),
                    pl.col("time_ms") + start_ms,
                    pl.col("request_id") + page,
                    pl.exclude("user", "item", "time_ms", "request_id"),
                )
                part = f"part-{chunk:0{len(str(chunks - 1))}d}.parquet"
                _write(events, scratch / partition / part)
                _write(truth, scratch / "truth" / partition / part)
                labels.update({task: labels[task] + int(events[task].sum()) for task in TASKS})
                page += requests
                if progress:
                    progress(page * spec.slots, rows["events"])
        biases = {f"bias_{task}": world.bias_UK[:, k] for k, task in enumerate(TASKS)}
        latents = {"latent_first_day": lists(first_UD), "latent_last_day": lists(taste_UD)}
        _write(pl.DataFrame({"user_id": user_id, **latents, **biases}), scratch / "truth/users.parquet")


def _chunk_requests(spec: Simulation) -> int:
    return max(1, min(CHUNK_IMPRESSIONS // spec.slots, CHUNK_CELLS // spec.categories))


def _write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path, compression="zstd", compression_level=1)
