"""Does a denoiser hold more of the clean quality when false positives are planted in the training log?

    python -m benchmarks.denoise --data FOLDER --noise 0 0.1 0.2 0.4 --seeds 1 2 3

FOLDER holds inter.parquet of MovieLens-100K or ratings.parquet of MovieLens-1M. Each user's events are split at random, 70 % to
train, 10 % to validate, 20 % to test (`benchmarks/noisy_log.py`), and items drawn evenly are added to the training events
alone. All methods train with the same seeds, noise and settings (CONFIG there, tuned without a denoiser);
the whole catalogue is ranked, seen items out. Test histories are read without the planted events, and, in the JSON, with them.

The differences are to the undefended model at the same noise: mean over seeds, and a 95 % interval over users drawn anew
("shown": it leaves out 0 and all seeds agree). "kept" is the share of the undefended model's NDCG@10 without noise. A finished
run is kept in --work and not trained again.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.noisy_log import CONFIG
from benchmarks.table import compared

NONE = "none"
METHODS = {
    NONE: "null",
    "truncated": "{kind: truncated, max_drop_rate: 0.3, ramp_steps: 200}",
    "reweighted": "{kind: reweighted, exponent: 0.1}",
    "personal": "{kind: personal, temperature: 0.5, start_step: 100}",
    "informative (middle)": "{kind: informative, curve: middle, temperature: 0.4, start_step: 100}",
    "self_taught": "{kind: self_taught, start_step: 100}",
}
K = 10


class Silent:
    """Reports of the training loop; keeps the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        self.seconds.append(
            sum(value for name, value in metrics.items() if name.startswith("seconds/") and name != "seconds/data")
        )

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None: ...


def prepared(work: str, data: str, noise: float, seed: int) -> None:
    """The dataset with this much noise, unless it is there; without noise the seed plays no part."""
    from benchmarks import noisy_log
    from pipelines import stages
    from pipelines.workspace import Workspace
    from recsys.config import load

    folder = Path(work)
    if (folder / "dataset").exists():
        return
    parts, _ = noisy_log.with_noise(noisy_log.held_out(noisy_log.read(Path(data))), noise, seed)
    noisy_log.write(parts, folder / "raw")
    (folder / "config.yaml").write_text(CONFIG)
    stages.prepare(load(folder / "config.yaml"), folder / "raw", Workspace(folder))


def trained(work: str, clean: str, out: str, seed: int, sets: list[str]) -> dict[str, float]:
    """Train one retriever and judge it; NDCG@10 of every user goes to `out`.npz, as logged and without the planted events."""
    from safetensors.torch import load_file

    from pipelines import models
    from pipelines.train import train_retriever
    from recsys import evaluate
    from recsys.config import load
    from recsys.dataset import Dataset
    from recsys.train.distributed import process_group
    from recsys.train.loop import MODEL_FILE

    config = load(Path(work) / "config.yaml", f"seed={seed}", *sets)
    data, silent, checkpoint = Dataset(Path(work) / "dataset"), Silent(), Path(out)
    with process_group() as device:
        manifest = train_retriever(config, data, checkpoint, device=device, progress=silent)
    graph = models.retrieval_graph(config, data, load_file(checkpoint / MODEL_FILE))
    per_user = {}
    for name, judged in (("as_logged", _judged(data)), ("clean", _judged(Dataset(Path(clean) / "dataset"), data))):
        item_UK = evaluate.recommend(graph, judged, k=K, max_history=config.max_history, filter_seen=True)
        per_user[name] = evaluate.retrieval_metrics(item_UK, judged, [K], data.num_items)[1][f"NDCG@{K}"]
    shutil.rmtree(checkpoint)
    result = {"seconds_a_step": statistics.median(silent.seconds), "epochs": manifest["epochs"], "valid": manifest["best"]}
    np.savez(out, allow_pickle=False, **per_user, **{name: np.array(value) for name, value in result.items()})
    return result


def _judged(data: Any, ids_of: Any = None) -> Any:
    """Test users of a dataset, its items by the ids of another one."""
    from recsys import evaluate
    from recsys.columns import TEST
    from recsys.jagged import Jagged

    judged = evaluate.judged_users(data, TEST, filter_seen=True, request_time="last_event")
    if ids_of is None:
        return judged
    place = {name: row for row, name in enumerate(ids_of.item_ids) if name is not None}
    row_I = np.array([place[name] if name is not None else row for row, name in enumerate(data.item_ids)])

    def moved(lists: Jagged) -> Jagged:
        return Jagged(row_I[lists.item_E], lists.offset_U1)

    return type(judged)(judged.user_U, moved(judged.history), moved(judged.relevant), judged.time_ms)


def table(
    found: dict[tuple[str, float, int], Any], methods: list[str], noises: list[float], seeds: list[int], view: str
) -> list[dict[str, Any]]:
    """A row for each method and noise."""
    rows = []
    clean = np.mean([found[NONE, 0.0, seed][view].mean() for seed in seeds]) if 0.0 in noises else None
    for noise in noises:
        base_SU = np.stack([found[NONE, noise, seed][view] for seed in seeds])
        base_seconds = statistics.median(float(found[NONE, noise, seed]["seconds_a_step"]) for seed in seeds)
        for method in methods:
            value_SU = np.stack([found[method, noise, seed][view] for seed in seeds])
            seconds = statistics.median(float(found[method, noise, seed]["seconds_a_step"]) for seed in seeds)
            row = {
                "method": method,
                "noise": noise,
                "ndcg": float(value_SU.mean()),
                "kept": None if clean is None else float(value_SU.mean() / clean),
                "step": seconds / base_seconds,
            }
            if method != NONE:
                row |= compared(value_SU, base_SU)
            rows.append(row)
    return rows


def _printed(rows: list[dict[str, Any]]) -> None:
    print(f"| noise | method | NDCG@{K} | kept | difference to none | step time |\n|---:|---|---:|---:|---|---:|")
    for row in rows:
        text = (
            f"{row['mean']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}){' shown' if row['shown'] else ''}"
            if "mean" in row
            else ""
        )
        kept = "" if row["kept"] is None else f"{row['kept']:.1%}"
        print(f"| {row['noise']:.0%} | {row['method']} | {row['ndcg']:.4f} | {kept} | {text} | {row['step']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with inter.parquet or ratings.parquet")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.4], help="planted positives per training event"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help="of: " + ", ".join(METHODS))
    parser.add_argument("--work", type=Path, default=measure.DATA / "denoise", help="where datasets and finished runs are kept")
    parser.add_argument("--name", default="denoise", help="of the JSON in benchmarks/out")
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], help="override a config key for all methods; repeatable"
    )
    options = parser.parse_args()
    methods = list(dict.fromkeys([NONE, *options.methods]))
    work, found = options.work / options.data.name, {}
    measure.call("benchmarks.denoise", "prepared", 2, work=work / "noise-0", data=options.data, noise=0, seed=0)
    for noise in options.noise:
        for seed in options.seeds:
            folder = work / (f"noise-{noise:g}-{seed}" if noise else "noise-0")
            measure.call("benchmarks.denoise", "prepared", 2, work=folder, data=options.data, noise=noise, seed=seed)
            for method in methods:
                out = work / options.name / f"{noise:g}-{seed}-{method.split(' ')[0]}"
                if not (out.parent / f"{out.name}.npz").exists():
                    sets = [*options.sets, f"retriever.denoise={METHODS[method]}"]
                    run = measure.call(
                        "benchmarks.denoise", "trained", 1, work=folder, clean=work / "noise-0", out=out, seed=seed, sets=sets
                    )
                    print(f"  {method}, noise {noise:.0%}, seed {seed}: {run.result}", file=sys.stderr, flush=True)
                found[method, noise, seed] = dict(np.load(out.parent / f"{out.name}.npz"))
    rows = table(found, methods, options.noise, options.seeds, "clean")
    _printed(rows)
    everything = {
        "clean": rows,
        "as_logged": table(found, methods, options.noise, options.seeds, "as_logged"),
        "seeds": options.seeds,
    }
    measure.OUT.mkdir(exist_ok=True)
    (measure.OUT / f"{options.name}.json").write_text(json.dumps(everything) + "\n")
    print(json.dumps(everything))


if __name__ == "__main__":
    main()
