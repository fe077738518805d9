"""Days of a world with drifting tastes: a frozen model, warm days with each technique, and a training from scratch every day.

    python -m benchmarks.continual [--users 600] [--items 300] [--first-days 30] [--days 10] [--seeds 1 2 3] [--drift 0.05]

Every policy begins from the same model and sees the same days: a day is appended to the dataset, the model trains, and is
judged on the day after. The last day of a dataset tests and the one before validates, so that a model of day D has learned
from days up to D - 2. Seconds are those of training, by part. Intervals: users drawn anew, the same draws for both policies;
the rows of a user on all days and with all seeds go together.
"""

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

TECHNIQUES: dict[str, dict[str, Any]] = {
    "warm, no replay": {"replay": 0.0},
    "warm": {},
    "warm, replay 0.5": {"replay": 0.5},
    "warm, rewarm 1": {"rewarm": 1.0},
    "warm + distil": {"distil": {}},
    "warm + average": {"average": 0.5},
    "warm + align": {"weight_align": True},
}
FROZEN, FULL = "frozen", "full, every day"
POLICIES = (FROZEN, *TECHNIQUES, FULL)
OVERRIDES = ("data.events.arrives=by_folder", "data.split={kind: time, valid_days: 1, test_days: 1}")
PARTS = ("retriever", "ranker")


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def world(folder: str, users: int, items: int, days: int, events: int, drift: float) -> None:
    """folder/log, a raw log with a folder for each day."""
    from recsys.simulate import Simulation, simulate

    simulate(Simulation(users=users, items=items, days=days, events=events, drift=drift), Path(folder) / "log")


def datasets(folder: str, first: int) -> int:
    """folder/data/N, the dataset of the first N days, from N = first on; returns the number of days."""
    from recsys.data.build import build

    root, config = Path(folder), _config()
    days = sorted((root / "log" / "events").iterdir())
    raw, before = root / "raw", None
    (raw / "events").mkdir(parents=True)
    for table in ("users.parquet", "items.parquet"):
        (raw / table).hardlink_to(root / "log" / table)
    for number, day in enumerate(days, 1):
        shutil.copytree(day, raw / "events" / day.name, copy_function=os.link)
        if number < first:
            continue
        out = root / "data" / str(number) / "dataset"
        if before is not None:
            shutil.copytree(before, out, copy_function=os.link)
        build(config.data, raw, out)
        before = out
    return len(days)


def play(folder: str, policy: str, seed: int, first: int, days: int) -> dict[str, Any]:
    """One policy over all days: seconds of training by day and part, and what every user got on the day after."""
    from recsys.train.distributed import process_group

    config = _config(f"seed={seed}", *_overrides(policy))
    found: dict[str, Any] = {part: {"seconds": [], "steps": [], "rows": []} for part in PARTS}
    shared, own = (Path(folder) / "models" / f"{name}-{seed}" for name in (FROZEN, policy))
    with process_group() as device:
        for part in PARTS:
            began = shared / str(first), first  # the first model is everybody's
            if not (began[0] / part).exists():
                _train(config, part, Path(folder), first, began[0], None, device)
            for number in range(first + 1, days):  # the last day only judges
                made = {"seconds": 0.0, "steps": 0}
                if policy != FROZEN:
                    here = own / str(number)
                    made = _train(config, part, Path(folder), number, here, None if policy == FULL else began, device)
                    began = here, number
                for name, value in made.items():
                    found[part][name].append(value)
                found[part]["rows"] += _judged(config, part, Path(folder), number + 1, began[0])
    return found


def _config(*overrides: str) -> Any:
    from pipelines.workspace import config_path
    from recsys.config import load

    return load(config_path("demo"), *OVERRIDES, *overrides)


def _overrides(policy: str) -> list[str]:
    import json

    return [f"continual.{key}={json.dumps(value)}" for key, value in TECHNIQUES.get(policy, {}).items()]


def _train(
    config: Any, part: str, folder: Path, number: int, here: Path, began: tuple[Path, int] | None, device: Any
) -> dict[str, Any]:
    from pipelines.train import train_ranker, train_retriever
    from pipelines.warm import Warm
    from pipelines.workspace import Workspace, read_state
    from recsys.dataset import Dataset

    options: dict[str, Any] = {}
    if began is not None:
        start = Workspace(began[0])
        options = {
            "start": read_state(start, part, config, optimizer=True),
            "warm": Warm(config, start, Dataset(_data(folder, began[1]))),
        }
    trainer = {"retriever": train_retriever, "ranker": train_ranker}[part]
    start_time = time.perf_counter()
    manifest = trainer(
        config, Dataset(_data(folder, number)), here / part, device=device, progress=Silent(), **options
    )  # fmt: skip
    return {"seconds": time.perf_counter() - start_time, "steps": manifest["steps"]}


def _judged(config: Any, part: str, folder: Path, number: int, here: Path) -> list[list[float]]:
    """Of the last day of a dataset: rows of user and NDCG@10, or for the ranker user, probability of a click and click."""
    from safetensors.torch import load_file

    from recsys.dataset import Dataset
    from recsys.train.loop import MODEL_FILE

    data, state = Dataset(_data(folder, number)), load_file(here / part / MODEL_FILE)
    return _ndcg(config, data, state) if part == "retriever" else _clicks(config, data, state)


def _ndcg(config: Any, data: Any, state: Any) -> list[list[float]]:
    from pipelines.models import retrieval_graph
    from recsys import evaluate
    from recsys.columns import TEST

    judged = evaluate.judged_users(data, TEST, filter_seen=True)
    graph = retrieval_graph(config, data, state)
    item_UK = evaluate.recommend(graph, judged, k=10, max_history=config.max_history, filter_seen=True)
    _, per_user = evaluate.retrieval_metrics(item_UK, judged, [10], data.num_items)
    return [[int(user), float(value)] for user, value in zip(judged.user_U, per_user["NDCG@10"], strict=True)]


def _clicks(config: Any, data: Any, state: Any) -> list[list[float]]:
    from pipelines.evaluate import judged_examples
    from pipelines.models import ranking_graph
    from recsys import evaluate
    from recsys.train.grow import with_unknown_rows

    sizes = {"user": data.num_users, "item": data.num_items, **{f["name"]: f["size"] for f in data.features}}
    graph = ranking_graph(config, data, with_unknown_rows(state, sizes))
    rows = evaluate.predict(graph, judged_examples(config, data)).of("click", list(config.tasks))
    table = zip(rows.user_N, rows.score_N, rows.label_N, strict=True)
    return [[int(user), round(float(score), 6), int(label)] for user, score, label in table]


def _data(folder: Path, number: int) -> Path:
    return folder / "data" / str(number) / "dataset"


def compared(rows: dict[str, list[list[float]]], part: str, seed: int = 1) -> dict[str, dict[str, float]]:
    """Of every policy the measure, and its distance from the frozen model and from the full training, with intervals."""
    import numpy as np

    from recsys.metrics.paired import drawn_auc, drawn_mean
    from recsys.metrics.resample import draw_users
    from recsys.metrics.significance import percentile_interval

    tables = {policy: np.asarray(table) for policy, table in rows.items()}
    num_users = int(max(table[:, 0].max() for table in tables.values())) + 1
    once_RU = np.ones((1, num_users), np.int32)
    times_RU = np.concatenate([once_RU, draw_users(num_users, 400, np.random.default_rng(seed))])

    def measured(table: Any) -> Any:
        user_N = table[:, 0].astype(np.int64)
        if part == "retriever":
            return drawn_mean(table[:, 1], user_N, times_RU)
        return drawn_auc(table[:, 1], table[:, 2], user_N, times_RU)

    value_R = {policy: measured(table) for policy, table in tables.items()}
    found = {}
    for policy, mine_R in value_R.items():
        found[policy] = {"value": float(mine_R[0])}
        for name, other in (("frozen", FROZEN), ("full", FULL)):
            share_R = mine_R / value_R[other] - 1
            low, high = percentile_interval(share_R[1:], 0.95)
            found[policy] |= {f"over_{name}": float(share_R[0]), f"over_{name}_low": low, f"over_{name}_high": high}
    return {policy: {name: round(value, 5) for name, value in each.items()} for policy, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.continual", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=measure.DATA / "continual", help="folder for the log, emptied first")
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--events-a-day", type=int, default=6000)
    parser.add_argument("--first-days", type=int, default=30)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--drift", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    measure.stop_without("polars")
    folder, total = args.data.resolve(), args.first_days + args.days + 1
    shutil.rmtree(folder, ignore_errors=True)
    made = {"users": args.users, "items": args.items, "days": total, "events": total * args.events_a_day, "drift": args.drift}
    measure.call("benchmarks.continual", "world", args.threads, folder=folder, **made)
    measure.call("benchmarks.continual", "datasets", args.threads, folder=folder, first=args.first_days)
    policies = list(dict.fromkeys([FROZEN, *args.policies, FULL]))
    runs: dict[str, list[dict[str, Any]]] = {policy: [] for policy in policies}
    for seed in args.seeds:
        for policy in policies:
            given = {"folder": folder, "policy": policy, "seed": seed, "first": args.first_days, "days": total}
            runs[policy].append(measure.call("benchmarks.continual", "play", args.threads, **given).result)
    facts = {part: facts_of(runs, part) for part in PARTS}
    measure.report(
        "continual",
        f"{args.days} days after {args.first_days}: {args.users} users, {args.items} items, {args.events_a_day} impressions a "
        f"day, drift {args.drift}, seeds {args.seeds}; the value of the next day, its distance in % from the full training's",
        ["policy", "NDCG@10", "to full %", "s a day", "AUC click", "to full %", "s a day"],
        [[policy, *(cell for part in PARTS for cell in _cells(facts[part][policy]))] for policy in policies],
        {**made, "seeds": args.seeds, "first_days": args.first_days, "parts": facts},
    )


def facts_of(runs: dict[str, list[dict[str, Any]]], part: str) -> dict[str, dict[str, float]]:
    """Of every policy what `compared` says, and the mean seconds and steps of a day."""
    rows = {policy: [row for run in of_seeds for row in run[part]["rows"]] for policy, of_seeds in runs.items()}
    found = compared(rows, part)
    for policy, of_seeds in runs.items():
        for name in ("seconds", "steps"):
            later = [value for run in of_seeds for value in run[part][name]]
            found[policy][f"{name}_a_day"] = round(sum(later) / len(later), 3)
    return found


def _cells(facts: dict[str, float]) -> list[str]:
    low, high = 100 * facts["over_full_low"], 100 * facts["over_full_high"]
    return [
        f"{facts['value']:.4f}",
        f"{100 * facts['over_full']:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{facts['seconds_a_day']:.2f}",
    ]


if __name__ == "__main__":
    main()
