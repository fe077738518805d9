"""What do learning every day, exploring and forgetting to learn do over days, in a world that answers what it is shown?

    python -m benchmarks.closed_loop --days 10 --seeds 1 2

Tastes drift, and items come into fashion and go out of it. Each policy serves the same users with the real endpoint, day by
day, and learns (or not) from what its own lists brought about by `recsys daily` (docs/closed-loop.md). Regret is by the truth
of the world. Differences to `base`, which goes on from the day before with a replay, are paired page by page, with 95 %
intervals over users; so are those of all worlds together, and those to `full` and `frozen`. Played days are kept in --work.
"""

import os
from pathlib import Path
from typing import Any

from benchmarks import measure, worlds
from benchmarks.table import publish

WORLD: dict[str, Any] = {
    "users": 600,
    "items": 300,
    "categories": 10,
    "events": 40_000,
    "drift": 0.1,
    "trend": 0.6,
    "trend_drift": 0.1,
}
WARM_UP = 10
CONFIG = (
    "max_history=50", "evaluation.filter_seen=false", "serving.value={click: 1, long_view: 0, like: 0, purchase: 0}",
    "retriever.encoder={kind: mean_pooling, dim: 32, dropout: 0.2}", "retriever.fit.epochs=8", "ranker.fit.epochs=4",
    "promotion.floor=null", "promotion.slices={}", "promotion.champion=null", "continual.full_every_days=null",
    "continual.full_on_drift=null",
)  # fmt: skip
AGAINST = ("base", "full", "frozen")
POLICIES = {
    "frozen": "frozen: {loop.train_every: 0}",
    "full": "full: {continual.full_every_days: 1}",
    "longer": "longer: {retriever.fit.epochs: 16, ranker.fit.epochs: 8}",
    "full_longer": "full_longer: {continual.full_every_days: 1, retriever.fit.epochs: 16, ranker.fit.epochs: 8}",
    "no_replay": "no_replay: {continual.replay: 0}",
    "gentle": "gentle: {continual.rewarm: 0.2}",
    "average": "average: {continual.average: 0.3}",
    "distil": "distil: {continual.distil: {}}",
    "explores": "explores: {serving.rerank: [{kind: explore, rate: 0.3, draw: uniform}]}",
    "explores_debiased": "explores_debiased: {serving.rerank: [{kind: explore, rate: 0.3, draw: uniform}], "
    "ranker.debias: {kind: snips, propensity: {kind: logged}}}",
    "places_debiased": "places_debiased: {ranker.debias: {kind: snips, propensity: {kind: examination}}}",
    "popularity_debiased": "popularity_debiased: {retriever.debias: {kind: snips, propensity: {kind: popularity}}}",
    "memory": "memory: {serving.error_memory: {tasks: [click]}, loop.ask: {filter_seen: false, compensate: true}}",
    "frozen_memory": "frozen_memory: {loop.train_every: 0, serving.error_memory: {tasks: [click]}, "
    "loop.ask: {filter_seen: false, compensate: true}}",
}


def played(work: str, seed: int, days: int, policies: list[str], overrides: list[str]) -> dict[str, Any]:
    """One world with all its policies."""
    from rich.console import Console

    from pipelines.loop.command import run_loop
    from pipelines.loop.plan import LoopConfig

    return run_loop(
        "demo", Path(work), LoopConfig(days=days, warm_up=WARM_UP), overrides=(*CONFIG, f"seed={seed}", *overrides),
        vary=[POLICIES[name] for name in policies], console=Console(stderr=True), seed=seed, **WORLD,
    )  # fmt: skip


def main() -> None:
    parser = worlds.parser("closed_loop", __doc__, "closed-loop")
    parser.add_argument("--days", type=int, default=7, help="of each loop")
    parser.add_argument("--policies", nargs="*", choices=POLICIES, default=["frozen", "full", "explores"], help="beside base")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    tables, results = [], {}
    for seed in args.seeds:
        run = measure.call(
            "benchmarks.closed_loop", "played", 1, work=args.work.resolve() / f"world-{seed}-{args.days}", seed=seed,
            days=args.days, policies=args.policies, overrides=args.overrides,
        )  # fmt: skip
        tables.append((f"World {seed}, {args.days} days", *_table(run.result)))
        results[seed] = {**run.numbers(), **run.result}
    folders = {seed: args.work.resolve() / f"world-{seed}-{args.days}" for seed in args.seeds}
    together = pooled(folders, {seed: found["days"] for seed, found in results.items()}, ["base", *args.policies])
    tables.append(("All worlds", *_pooled_table(together)))
    publish("closed_loop", tables, {"worlds": results, "together": together})


def pooled(folders: dict[int, Path], days: dict[int, list[str]], policies: list[str]) -> dict[str, Any]:
    """Of each policy the regret and true NDCG of all pages of all worlds, and its differences to those of `AGAINST`."""
    from dataclasses import replace

    import numpy as np

    from pipelines.loop.play import values
    from pipelines.loop.report import beside

    def of(policy: str) -> list[Any]:
        return [
            replace(day, user_R=day.user_R + place * WORLD["users"])  # other people in each world
            for place, (seed, folder) in enumerate(folders.items())
            for day in values(folder / policy, days[seed])
        ]

    every = {policy: of(policy) for policy in policies}
    found: dict[str, Any] = {}
    for policy, table in every.items():
        value, best, ndcg = (np.concatenate([getattr(day, name) for day in table]) for name in ("value_R", "best_R", "ndcg_R"))
        found[policy] = {"regret": float(1 - value.sum() / best.sum()), "true_ndcg": float(ndcg.mean())}
        found[policy] |= {other: beside(table, every[other]) for other in AGAINST if other in every and other != policy}
    return found


def _pooled_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    from pipelines.loop.report import interval

    others = [other for other in AGAINST if other in found]
    rows = [
        [policy, f"{each['regret']:.2%}", f"{each['true_ndcg']:.4f}"]
        + [interval(part) if other in each else "" for other in others for part in _parts(each.get(other))]
        for policy, each in found.items()
    ]
    named = [f"{what} beside {other}" for other in others for what in ("value", "NDCG")]
    return ["policy", "regret", "true NDCG", *named], rows


def _parts(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    return [found, found["ndcg"]] if found else [{}, {}]


def _table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    from pipelines.loop.report import rows

    return rows(found)


if __name__ == "__main__":
    main()
