"""A world with known truth: users whose tastes drift, a logging policy with exact propensities, clicks with position bias.

The log is what a real service would have kept; `truth/` beside it is what no service ever knows, and training never reads it.
Days are simulated in order, each in chunks of bounded size with their own random stream, so memory does not grow with events
and the same settings give the same bytes.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl

from recsys.artefact import write_artefact
from recsys.simulate.days import first_moment, visited
from recsys.simulate.log import impressions
from recsys.simulate.settings import Simulation
from recsys.simulate.tables import ids, item_table, lists, user_table
from recsys.simulate.world import TASKS, first_tastes, make_world

__all__ = ["Simulation", "simulate"]


def simulate(spec: Simulation, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the world as a "raw" artefact; `progress(events done, events in all)` is called after every part file.

    events/day=YYYY-MM-DD/part-N.parquet   a row per impression, in order of time; part files read in order of their names
    users.parquet, items.parquet           what the service knows of them
    truth/                                 what it does not: truth/events is aligned with events file by file, row by row
    """
    pages = spec.events // spec.slots
    first_ms = first_moment(spec)
    world = make_world(spec)
    user_id, item_id = ids("u", spec.users), ids("i", spec.items)
    labels = dict.fromkeys(TASKS, 0)
    rows = {"events": pages * spec.slots, "users": spec.users, "items": spec.items}
    with write_artefact(folder, "raw", config=spec.model_dump(mode="json"), rows=rows, labels=labels) as (scratch, _):
        _write(item_table(spec, world, item_id, first_ms), scratch / "items.parquet")
        _write(user_table(spec, world, user_id), scratch / "users.parquet")
        biases = {f"bias_{task}": world.bias_IK[:, k] for k, task in enumerate(TASKS)}
        _write(pl.DataFrame({"item_id": item_id, "latent": lists(world.latent_ID), **biases}), scratch / "truth/items.parquet")
        first_UD = first_tastes(spec, world)
        for each in visited(spec, world):
            taste_UD = each.taste_UD
            events, truth = impressions(spec, world, taste_UD, each.user_R, each.focus_R, each.time_R, each.rng)
            events = events.select(
                user_id.gather(events["user"]).alias("user_id"),
                item_id.gather(events["item"]).alias("item_id"),
                pl.col("time_ms") + each.start_ms,
                pl.col("request_id") + each.page,
                pl.exclude("user", "item", "time_ms", "request_id"),
            )
            partition = f"events/day={spec.start_date + timedelta(days=each.day)}"
            part = f"part-{each.chunk:0{len(str(each.chunks - 1))}d}.parquet"
            _write(events, scratch / partition / part)
            _write(truth, scratch / "truth" / partition / part)
            labels.update({task: labels[task] + int(events[task].sum()) for task in TASKS})
            if progress:
                progress((each.page + len(each.user_R)) * spec.slots, rows["events"])
        biases = {f"bias_{task}": world.bias_UK[:, k] for k, task in enumerate(TASKS)}
        latents = {"latent_first_day": lists(first_UD), "latent_last_day": lists(taste_UD)}
        _write(pl.DataFrame({"user_id": user_id, **latents, **biases}), scratch / "truth/users.parquet")


def _write(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(path, compression="zstd", compression_level=1)
