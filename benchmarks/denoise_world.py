"""What do the denoisers weigh down, where it is known which clicks were accidents?

    python -m benchmarks.denoise_world --seeds 1 2 3

Worlds are simulated (`recsys simulate`) in which a fifth of all clicks is accidental, and a ranker learns the clicks of the log
with each denoiser. Then the trained model and denoiser weigh every click of the training log: of as many clicks as are
accidental, those of lowest weight, which share is accidental (precision, and recall too, the numbers being equal), and how
often does an accidental click weigh less than another one (AUC)? Beside it the model's quality on test impressions, judged
by clicks that were meant, with the 95 % interval of the difference to no denoiser over users drawn anew; a world for each seed.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.denoise import NONE, Silent

METHODS = {
    NONE: "null",
    "truncated": "{kind: truncated, max_drop_rate: 0.2, ramp_steps: 500}",
    "reweighted": "{kind: reweighted, exponent: 0.2}",
    "personal": "{kind: personal, temperature: 0.5, start_step: 200, resample: false}",
    "informative (middle)": "{kind: informative, curve: middle, temperature: 0.5, start_step: 200}",
    "informative (upper)": "{kind: informative, start_step: 200}",
    "self_taught": "{kind: self_taught}",
}
ACCIDENTAL_SHARE = 0.2
CLICK, ACCIDENTAL, MEANT = "click", "accidental", "meant"


def prepared(work: str, seed: int) -> None:
    """A world, its log with the truth of every click beside it, and the dataset, unless it is there."""
    import polars as pl
    import yaml

    from pipelines import stages
    from pipelines.workspace import Workspace, config_path
    from recsys.config import load
    from recsys.simulate import Simulation, simulate

    folder = Path(work)
    if (folder / "dataset").exists():
        return
    raw = folder / "raw"
    if not raw.exists():
        world = Simulation(users=1500, items=600, events=300_000, days=20, seed=seed, accidental_share=ACCIDENTAL_SHARE)
        simulate(world, raw)
    for part in sorted((raw / "events").rglob("*.parquet")):
        truth = pl.read_parquet(raw / "truth" / part.relative_to(raw))
        events = pl.read_parquet(part).with_columns(truth[ACCIDENTAL].cast(pl.Int8))
        events.with_columns((pl.col(CLICK) * (1 - pl.col(ACCIDENTAL))).alias(MEANT)).write_parquet(part)
    tree = yaml.safe_load(config_path("demo").read_text()) | {"name": "denoise-world", "serving": {"value": {CLICK: 1.0}}}
    tree["data"]["events"]["labels"] = {name: name for name in (CLICK, ACCIDENTAL, MEANT)}
    tree["ranker"]["tasks"] = {CLICK: 1.0}
    tree["data"].pop("features")  # they count clicks, accidents too
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    stages.prepare(load(folder / "config.yaml"), raw, Workspace(folder))


def trained(work: str, out: str, seed: int, denoise: str) -> dict[str, float]:
    """Train one ranker, weigh the log with it and judge it; scores of the test impressions go to `out`.npz."""
    from safetensors.torch import load_file

    from pipelines.models import ranking_graph
    from pipelines.train import ranker_job
    from recsys import evaluate
    from recsys.columns import TEST
    from recsys.config import load
    from recsys.dataset import Dataset
    from recsys.loader import ExampleLoader
    from recsys.train.distributed import process_group
    from recsys.train.loop import MODEL_FILE, fit

    config = load(Path(work) / "config.yaml", f"seed={seed}", f"ranker.denoise={denoise}")
    data, checkpoint, silent = Dataset(Path(work) / "dataset"), Path(out), Silent()
    with process_group() as device:
        job = ranker_job(config, data, device)
        fit(job, config.ranker.fit, seed=seed, device=device, out=checkpoint, identity={"run": out}, progress=silent)
        state = load_file(checkpoint / MODEL_FILE)
        weight_N, accidental_N = (
            (np.ones(2), np.array([0.0, 1.0])) if denoise == "null" else _weights(job, state, data, config, device)
        )
    loader = ExampleLoader(data, tasks=[MEANT], split=TEST, max_history=config.ranker_history, batch_size=8192, seed=seed)
    found = evaluate.predict(ranking_graph(config, data, state), loader)
    shutil.rmtree(checkpoint)
    np.savez(
        f"{out}.npz", allow_pickle=False, weight=weight_N, accidental=accidental_N, seconds=np.median(silent.seconds),
        score=found.probability_XT[:, 0], label=found.label_XT[:, 0], user=found.user_X,
    )  # fmt: skip
    return {"seconds_a_step": float(np.median(silent.seconds))}


def _weights(job: Any, state: Any, data: Any, config: Any, device: Any) -> tuple[np.ndarray, np.ndarray]:
    """weight_N of every click of the training log as the end of training gives it, and whether it was an accident."""
    import torch

    from recsys.columns import TRAIN
    from recsys.loader import ExampleLoader
    from recsys.train.checkpoint import load_model_state
    from recsys.train.distributed import place
    from recsys.train.weights import Passes, context, trust

    model = place(job.build(), device, optimizer="sgd", learning_rate=0.0)
    load_model_state(model, state)
    loader = ExampleLoader(
        data, tasks=[CLICK, ACCIDENTAL], split=TRAIN, max_history=config.ranker_history, seed=0,
        batch_size=config.ranker.fit.batch_size, together=config.ranker.denoise.together,
    )  # fmt: skip
    weights, accidents = [], []
    for number, batch in enumerate(loader.epoch(0)):
        label_B = batch.label_BT[:, 0]
        found = {
            name: vector.detach().requires_grad_()
            for name, vector in model.embeddings(job.learner.draw(batch, torch.Generator()).ids).items()
        }

        def forward(vectors: Any, batch: Any = batch, label_B: Any = label_B) -> torch.Tensor:
            logit_B = model(vectors, batch)[:, 0]
            return torch.nn.functional.binary_cross_entropy_with_logits(logit_B, label_B, reduction="none")

        passes = Passes(forward, model, found, seed=number)
        model.eval()
        loss_B = forward(found)
        model.train()
        here = context(passes, loss_B, step=10**9, group_B=batch.ids["user"].value_N)
        weight_B, _ = trust(job.learner.denoise[0], "it", loss_B, label_B, here)
        weights.append(weight_B[label_B == 1].numpy())
        accidents.append(batch.label_BT[:, 1][label_B == 1].numpy())
    return np.concatenate(weights), np.concatenate(accidents)


def table(runs: dict[tuple[str, int], Any], seeds: list[int]) -> list[dict[str, Any]]:
    from recsys.metrics.classification import auc
    from recsys.metrics.paired import difference, drawn_auc
    from recsys.metrics.resample import draw_users

    rows = []
    times = {seed: draw_users(int(runs[NONE, seed]["user"].max()) + 1, 200, np.random.default_rng(seed)) for seed in seeds}
    drawn = {key: drawn_auc(run["score"], run["label"], run["user"], times[key[1]]) for key, run in runs.items()}
    quality = {key: auc(run["score"], run["label"]) for key, run in runs.items()}
    base_seconds = np.median([runs[NONE, seed]["seconds"] for seed in seeds])
    for method in METHODS:
        row: dict[str, Any] = {"method": method, "auc_meant": float(np.mean([quality[method, seed] for seed in seeds]))}
        row["step"] = float(np.median([runs[method, seed]["seconds"] for seed in seeds]) / base_seconds)
        if method != NONE:
            found = difference(
                np.array([quality[method, seed] for seed in seeds]), np.array([quality[NONE, seed] for seed in seeds]),
                np.stack([drawn[method, seed] for seed in seeds]), np.stack([drawn[NONE, seed] for seed in seeds]),
            )  # fmt: skip
            gains = [quality[method, seed] - quality[NONE, seed] for seed in seeds]
            row |= {"mean": found.mean, "low": found.low, "high": found.high, "seeds_better": sum(gain > 0 for gain in gains)}
            chosen = [_precision(runs[method, seed]["weight"], runs[method, seed]["accidental"]) for seed in seeds]
            row |= {
                "precision": float(np.mean(chosen)),
                "detection_auc": float(
                    np.mean([auc(-runs[method, s]["weight"], runs[method, s]["accidental"]) for s in seeds])
                ),
                "share": float(np.mean([runs[method, seed]["accidental"].mean() for seed in seeds])),
            }
        rows.append(row)
    return rows


def _precision(weight_N: np.ndarray, accidental_N: np.ndarray) -> float:
    """Of the lowest weights, as many as there are accidents; ties are broken at random."""
    order_N = np.lexsort((np.random.default_rng(0).random(len(weight_N)), weight_N))
    return float(accidental_N[order_N[: int(accidental_N.sum())]].mean())


def _printed(rows: list[dict[str, Any]], worlds: int) -> None:
    print("| method | precision | AUC of the weights | AUC by meant clicks | difference to none | step time |")
    print("|---|---:|---:|---:|---|---:|")
    for row in rows:
        found, gain = ["", ""], ""
        if "mean" in row:
            found = [f"{row['precision']:.3f}", f"{row['detection_auc']:.3f}"]
            gain = f"{row['mean']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}), better in {row['seeds_better']} of {worlds}"
        print(f"| {row['method']} | {found[0]} | {found[1]} | {row['auc_meant']:.4f} | {gain} | {row['step']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--work", type=Path, default=measure.DATA / "denoise-world", help="where worlds and finished runs are kept"
    )
    options = parser.parse_args()
    runs = {}
    for seed in options.seeds:
        folder = options.work / f"world-{seed}"
        measure.call("benchmarks.denoise_world", "prepared", 2, work=folder, seed=seed)
        for method, settings in METHODS.items():
            out = folder / "runs" / method.replace(" ", "-")
            if not Path(f"{out}.npz").exists():
                measure.call("benchmarks.denoise_world", "trained", 1, work=folder, out=out, seed=seed, denoise=settings)
                print(f"  {method}, world {seed}", file=sys.stderr, flush=True)
            runs[method, seed] = dict(np.load(f"{out}.npz"))
    rows = table(runs, options.seeds)
    _printed(rows, len(options.seeds))
    (measure.OUT / "denoise_world.json").write_text(json.dumps(rows) + "\n")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
