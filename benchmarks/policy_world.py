"""What are trained models truly worth as policies, in a simulated world where every user's taste is known?

    python -m benchmarks.policy_world --work FOLDER --seeds 1 2 3 --objectives top_k_reinforce

The log of a simulated world is prepared and models are trained on it as `recsys train` does, on clicks that position bias and
accidents have part in: a retriever, and policies that go on from it (benchmarks/policy_world_models.py). Nothing of the truth
is read in training, nor in choosing what is kept. Then each is asked at the test days' requests what it would show, and the
world says, item by item, with what chance the visitor means to click that in the first place of the page
(`recsys.simulate.truth`). Beside it stand the policy that wrote the log, which knows tastes and what the visit is about, and
what needs no learning; and what `recsys off-policy` estimates from the log alone, to be compared with the truth of the log's
own reward: a click in any place, accidents included. Models are kept in --work and not trained again.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, worlds
from benchmarks.policy_world_days import LOGGER, Policy, TestDays, greedy, slip
from benchmarks.policy_world_models import OBJECTIVES, settings, trained
from benchmarks.table import publish
from recsys.simulate import Simulation

SETTINGS: dict[str, Any] = {"users": 2000, "items": 1000, "days": 30}
SHOWN = ("snips", "DR")


def judged(
    work: str, seed: int, events: int, temperatures: list[float], objectives: list[str], overrides: list[str]
) -> dict[str, Any]:  # fmt: skip
    """One world: prepare, train what is not trained yet, and value every policy."""
    from pipelines import off_policy, stages
    from pipelines.requests import softmax_policy
    from pipelines.workspace import Workspace, open_dataset
    from recsys.metrics.off_policy.estimator import Terms
    from recsys.metrics.off_policy.intervals import normal
    from recsys.metrics.off_policy.outcome import cross_fitted
    from recsys.simulate import simulate

    spec, workspace = Simulation(**SETTINGS, events=events, seed=seed), Workspace(Path(work))
    config = settings(seed, *overrides)
    if not workspace.raw.exists():
        simulate(spec, workspace.raw)
    stages.prepare(config, workspace.raw, workspace)
    data = open_dataset(workspace, config)
    _, rows = off_policy.logged_rows(config, data, "click")
    days = TestDays(spec, data, rows.asked)
    policies: dict[str, Policy] = {}
    for part, graph in trained(seed, data, workspace, objectives, overrides).items():
        for temperature in temperatures:
            policies[f"{part}, temperature {temperature:g}"] = softmax_policy(graph, data.num_items, temperature)
        policies[f"{part}, its best item"] = greedy(softmax_policy(graph, data.num_items))
    values = days.known_values(data.train_count_I)
    for name, policy in policies.items():
        values[name] = days.values(policy, max_history=config.max_history, filter_seen=config.evaluation.filter_seen)
    model = cross_fitted(
        rows.reward_N, rows.place_N, rows.item_N, rows.user_N, num_items=data.num_items, rng=np.random.default_rng(seed)
    )
    slip_share, user_R = slip(workspace.raw), np.unique(rows.asked.user_R, return_inverse=True)[1]
    found = {}
    for name, value_R in values.items():
        terms = Terms(value_R, np.zeros(len(value_R)), np.ones(len(value_R)))
        gain = None if name == LOGGER else normal(terms, user_R, minus_N=values[LOGGER])._asdict()
        entry = {**normal(terms, user_R)._asdict(), "gain": gain, "reward": days.logged_reward(value_R, slip_share)}
        if name in policies:
            log = off_policy.as_logged(rows, model, policies[name], config)
            entry["ess"] = off_policy.support(log).ess
            entry["estimates"] = off_policy.estimates(log)
            entry["held"] = {key: e["low"] <= entry["reward"] <= e["high"] for key, e in entry["estimates"].items()}
        found[name] = entry
    return {"requests": len(user_R), "logged": float(rows.reward_N.mean()), "policies": found}


def _table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name, e in sorted(result["policies"].items(), key=lambda entry: -entry[1]["value"]):
        gain = "" if e["gain"] is None else _interval(e["gain"], "+.4f")
        estimates = [_interval(e["estimates"][key], ".4f") if e.get("estimates") else "" for key in SHOWN]
        estimates = [text + ("" if not text or e["held"][key] else " *") for key, text in zip(SHOWN, estimates, strict=True)]
        rows.append(
            [name, _interval(e, ".4f"), gain, f"{e['reward']:.4f}", *estimates, f"{e['ess']:,.0f}" if "ess" in e else ""]
        )
    misses = [f"{key} (* misses)" for key in SHOWN]
    return ["policy", "true value", "above the log's", "true reward", *misses, "effective rows"], rows


def _interval(e: dict[str, Any], form: str) -> str:
    return f"{e['value']:{form}} ({e['low']:{form}} to {e['high']:{form}})"


def main() -> None:
    parser = worlds.parser("policy_world", __doc__, "policy-world")
    parser.add_argument("--events", type=int, default=1_000_000, help="impressions of each log")
    parser.add_argument("--objectives", nargs="*", choices=OBJECTIVES, default=["top_k_reinforce"], help="of policies")
    parser.add_argument("--temperature", type=float, nargs="+", default=[1.0], help="what scores are divided by")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    tables, results = [], {}
    for seed in args.seeds:
        run = measure.call(
            "benchmarks.policy_world", "judged", 1, work=args.work.resolve() / f"world-{seed}-{args.events}", seed=seed,
            events=args.events, temperatures=args.temperature, objectives=args.objectives, overrides=args.overrides,
        )  # fmt: skip
        tables.append((f"World {seed}, {run.result['requests']:,} requests of the test days", *_table(run.result)))
        results[seed] = {**run.numbers(), **run.result}
    publish("policy_world", tables, {"worlds": results})


if __name__ == "__main__":
    main()
