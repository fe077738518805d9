"""A world with known truth: users whose tastes drift, a logging policy with exact propensities, clicks with position bias.

The log is what a real service would have kept; `truth/` beside it is what no service ever knows, and training never reads it.
Days are simulated in order, each in chunks of bounded size with their own random stream, so memory does not grow with events
and the same settings give the same bytes.
"""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from recsys.artefact import write_artefact
from recsys.simulate.days import visited
from recsys.simulate.files import Files, write
from recsys.simulate.log import impressions
from recsys.simulate.settings import Simulation
from recsys.simulate.tables import lists
from recsys.simulate.world import TASKS, first_tastes, make_world

__all__ = ["Simulation", "simulate"]


def simulate(spec: Simulation, folder: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the world as a "raw" artefact; `progress(events done, events in all)` is called after every part file.

    events/day=YYYY-MM-DD/part-N.parquet   a row per impression, in order of time; part files read in order of their names
    users.parquet, items.parquet           what the service knows of them
    truth/                                 what it does not: truth/events is aligned with events file by file, row by row
    """
    pages = spec.events // spec.slots
    world = make_world(spec)
    files = Files(spec, world)
    labels = dict.fromkeys(TASKS, 0)
    rows = {"events": pages * spec.slots, "users": spec.users, "items": spec.items}
    with write_artefact(folder, "raw", config=spec.model_dump(mode="json"), rows=rows, labels=labels) as (scratch, _):
        files.write_tables(scratch)
        biases = {f"bias_{task}": world.bias_IK[:, k] for k, task in enumerate(TASKS)}
        write(
            pl.DataFrame({"item_id": files.item_id, "latent": lists(world.latent_ID), **biases}),
            scratch / "truth/items.parquet",
        )
        first_UD = first_tastes(spec, world)
        for each in visited(spec, world):
            taste_UD = each.taste_UD
            events, truth = impressions(spec, each.world, taste_UD, each.user_R, each.focus_R, each.time_R, each.rng)
            write(files.named(events, each), scratch / files.part(each))
            write(truth, scratch / "truth" / files.part(each))
            labels.update({task: labels[task] + int(events[task].sum()) for task in TASKS})
            if progress:
                progress((each.page + len(each.user_R)) * spec.slots, rows["events"])
        biases = {f"bias_{task}": world.bias_UK[:, k] for k, task in enumerate(TASKS)}
        latents = {"latent_first_day": lists(first_UD), "latent_last_day": lists(taste_UD)}
        write(pl.DataFrame({"user_id": files.user_id, **latents, **biases}), scratch / "truth/users.parquet")
