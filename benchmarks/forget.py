"""Does a model forget? The membership attack on forgotten users against users who were never trained on, and what the others
lose: exact retraining, selective synaptic dampening and bounded ascent with LoReUn weights, beside the model before.

    python -m benchmarks.forget --part retriever --seeds 5
"""

import argparse
import json
import logging
import pickle
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from benchmarks.forget_world import Case, case, groups, measured, world
from recsys.dataset import Dataset
from recsys.train.distributed import process_group

CASE_FILE = "case.pkl"


def interval(values: list[float]) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % interval by Student's t."""
    if len(values) < 2:
        return values[0], float("nan")
    return statistics.mean(values), float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def change(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Of the others' quality, as a share of what it was. Over seeds: mean and half of Student's interval, with the noise of
    training in it. Over users of all seeds: half of the interval of the paired differences, from the users who were drawn."""
    mean, half = interval([run[name]["quality_U"].mean() / run["before"]["quality_U"].mean() - 1 for run in runs])
    before_U = np.concatenate([run["before"]["quality_U"] for run in runs])
    difference_U = np.concatenate([run[name]["quality_U"] for run in runs]) - before_U
    users_half = 1.96 * float(difference_U.std()) / len(difference_U) ** 0.5 / float(before_U.mean())
    return {"change": mean, "change_half": half, "users_half": users_half, "judged": len(before_U)}


def kept_case(folder: Path, asked: argparse.Namespace, seed: int, device: torch.device) -> Case:
    """The seed's world and models: made, or read where an earlier run with the same settings made them."""
    folder = folder / f"{asked.part}-{asked.users}-{asked.forgotten}-{seed}"
    if (folder / CASE_FILE).is_file():
        config, *rest = pickle.loads((folder / CASE_FILE).read_bytes())  # of our own making
        return Case(config, Dataset(folder / "dataset"), asked.part, *rest)
    config, data = world(folder, users=asked.users, items=asked.items, events=asked.events, seed=seed, parts=(asked.part,))
    chosen = groups(data, forgotten=asked.forgotten, controls=asked.controls, unseen=asked.unseen, seed=seed)
    made = case(config, data, asked.part, chosen, device)
    models = (made.forget_F, made.control_C, made.unseen_N, made.before, made.retrain)
    (folder / CASE_FILE).write_bytes(pickle.dumps((config, *models)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("retriever", "ranker"), default="retriever")
    parser.add_argument("--methods", nargs="*", default=["dampen", "unlearn"], help="beside before and retrain")
    parser.add_argument("--keep", type=Path, help="folder for the worlds and models, read when they are there")
    for name, value in {
        "users": 4000, "items": 200, "events": 400_000, "forgotten": 150, "controls": 400, "unseen": 500, "seeds": 5,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    runs: list[dict[str, Any]] = []
    with process_group() as device, tempfile.TemporaryDirectory() as scratch:
        for seed in range(1, asked.seeds + 1):
            runs.append(measured(kept_case(asked.keep or Path(scratch), asked, seed, device), asked.methods))
            print(f"seed {seed}: " + ", ".join(f"{name} {found['auc']:.3f}" for name, found in runs[-1].items()), flush=True)
    table = {}
    print(f"\n{asked.part}: {asked.forgotten} users forgotten, {asked.controls} never trained on, {asked.seeds} seeds")
    print(f"{'':18}{'attack AUC':>18}{'less retrain':>18}{'others, change':>20}{'over users':>12}{'seconds':>9}")
    for name in runs[0]:
        auc, auc_half = interval([run[name]["auc"] for run in runs])
        gap, gap_half = interval([run[name]["auc"] - run["retrain"]["auc"] for run in runs])
        lost, seconds = change(runs, name), statistics.mean(run[name]["seconds"] for run in runs)
        table[name] = {
            "auc": auc, "auc_half": auc_half, "gap": gap, "gap_half": gap_half, **lost, "seconds": seconds,
        }  # fmt: skip
        print(
            f"{name:18}{auc:10.3f} ± {auc_half:.3f}{gap:+10.3f} ± {gap_half:.3f}{lost['change']:+11.1%} ± "
            f"{lost['change_half']:.1%}{'± ':>6}{lost['users_half']:.1%}{seconds:11.1f}"
        )
    settings = {name: value for name, value in vars(asked).items() if name != "keep"}
    print(json.dumps({"benchmark": "forget", **settings, "methods": table}))


if __name__ == "__main__":
    main()
