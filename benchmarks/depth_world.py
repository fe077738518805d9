"""What are lists truly worth when more candidates go to the ranker? Asked of the simulated world, which knows.

    python -m benchmarks.depth_world runs/demo

A log holds what its policy showed, so that a next click says little of items that were never shown: `recsys depth` judges by it
all the same, since a real log has nothing else. Here a list is worth what its items truly are to the user on the last day: the
mean over its places of the chance of each outcome (click, long view, like, purchase, each after the one before) times the
config's value, and of the chance of a click, all without a session's focus. Users: drawn from those with a history; intervals:
paired bootstrap over users, against the order of retrieval (depth 1).

Shapes: U = users, I = items, K = places of a list, T = tasks.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.table import publish
from pipelines.depth.depth import at_depth
from recsys.columns import LENGTH, USER_ID
from recsys.metrics.significance import paired_bootstrap
from recsys.simulate.behaviour import task_chance
from recsys.simulate.world import TASKS
from recsys.value_formula import ValueFormula
from serving.bundle.bundle import Bundle
from serving.recommend import recommend_many
from serving.schema import Query

DEPTHS, K, AT_ONCE = (1, 10, 20, 50, 100, 200), 10, 100


def truth(raw: Path, users: list[str]) -> tuple[np.ndarray, dict[str, int]]:
    """chance_UIT that a user who looks at an item does all up to each task, and the column of every item."""
    items = pl.read_parquet(raw / "truth/items.parquet")
    people = pl.DataFrame({"user_id": users}).join(pl.read_parquet(raw / "truth/users.parquet"), on="user_id", how="left")
    latent_ID, taste_UD = np.stack(items["latent"].to_list()), np.stack(people["latent_last_day"].to_list())
    affinity_UI = taste_UD @ latent_ID.T / np.float32(latent_ID.shape[1] ** 0.5)
    steps = [
        task_chance(t, affinity_UI, people[f"bias_{task}"].to_numpy()[:, None] + items[f"bias_{task}"].to_numpy())
        for t, task in enumerate(TASKS)
    ]
    return np.cumprod(np.stack(steps, axis=-1), axis=-1), {item: place for place, item in enumerate(items["item_id"])}


def lists(bundle: Bundle, users: list[str]) -> list[list[str]]:
    queries = [Query(user_id=user, k=K) for user in users]
    parts = (recommend_many(bundle, queries[at : at + AT_ONCE]) for at in range(0, len(queries), AT_ONCE))
    return [[item.item_id for item in each.items] for part in parts for each in part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="of a run on a simulated log: raw/truth and bundle")
    parser.add_argument("--users", type=int, default=1000)
    options = parser.parse_args()
    bundle, rng = Bundle.load(options.workspace / "bundle"), np.random.default_rng(0)
    known = bundle.users.filter(bundle.users[LENGTH].to_numpy() > 0)[USER_ID].to_pylist()
    users = [str(user) for user in rng.choice(known, min(options.users, len(known)), replace=False)]
    chance_UIT, column = truth(options.workspace / "raw", users)
    value_UI = ValueFormula(bundle.facts.value, bundle.facts.tasks)(
        chance_UIT[..., [TASKS.index(t) for t in bundle.facts.tasks]]
    )
    worth, found = {}, {}
    for depth in (each for each in DEPTHS if each <= bundle.facts.num_candidates):
        place_UK = np.array([[column[item] for item in items] for items in lists(at_depth(bundle, depth), users)])
        worth[depth] = np.take_along_axis(value_UI, place_UK, axis=1).mean(axis=1)
        click = float(np.take_along_axis(chance_UIT[..., 0], place_UK, axis=1).mean())
        change = paired_bootstrap(worth[depth], worth[DEPTHS[0]], rng=np.random.default_rng(0))
        found[depth] = {"value": float(worth[depth].mean()), "click": click, "low": change.low, "high": change.high}
    best = float(np.sort(value_UI, axis=1)[:, -K:].mean())
    rows = [
        (str(depth), f"{each['value']:.3f}", f"[{each['low']:+.3f}, {each['high']:+.3f}]", f"{each['click']:.3f}")
        for depth, each in found.items()
    ]
    title = (
        f"True worth of an item of a list of {K}, {len(users)} users; best possible {best:.3f}, any item {value_UI.mean():.3f}"
    )
    publish(
        "depth-world",
        [(title, ("ranked", "value", "to retrieval's order", "chance of a click"), rows)],
        {"users": len(users), "best": best, "any": float(value_UI.mean()), "by_depth": found},
    )


if __name__ == "__main__":
    main()
