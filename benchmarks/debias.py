"""Debiasing where the truth can be asked: what does training on a selected log cost, and what brings it back?

    python -m benchmarks.debias --data ../shared/data/coat

Coat: people chose what they rated, and then rated 16 random coats each. The ranker learns P(rating >= 3) from the former and is
judged on the latter. Every way gets the same `TRIALS`, and the one with the best AUC on a part of the self-selected ratings is
trained with each seed: choosing on random ratings would be a look at the test, so the choice is as biased as the log. Naive
Bayes reads P(like) from 5 % of the random ratings, which then judge nobody. "naive, level moved" is the naive model with the
same knowledge and no debiasing: its log odds move by the difference of the two shares' log odds. What a way wins in MSE beyond
that comes from the weights of single rows. Published code of this field counts a user without a liked coat as NDCG 1, leaves
the slice of P(like) in the test, and takes the largest ids for the numbers of users and items: here such users have no NDCG,
the slice is in nobody's test, and users and items are counted.

Simulated: a log with a known policy and known places, judged by the true relevance of random pairs; settings as they ship.

Differences are to the first way, with a 95 % interval over users; "shown": it holds no 0, and no seed of one way reaches into
the range of the other. Of twenty true zeros one interval misses. Shapes: N = rows of the test.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.table import publish

SEEDS, TUNING_SEED, DRAW_SEED, REPLICATES = 5, 100, 0, 500
MAX_HISTORY = 50
RANKER = {"sharing": {"kind": "shared_bottom", "hidden": 32}}
FIT = {"batch_size": 128, "epochs": 15, "patience": 4}
TRIALS: tuple[dict[str, Any], ...] = (
    {"dim": 16, "dropout": 0.1, "fit": {**FIT}},
    {"dim": 16, "dropout": 0.3, "fit": {**FIT, "weight_decay": 0.1}},
    {"dim": 8, "dropout": 0.1, "fit": {**FIT, "embedding_learning_rate": 0.02}},
)
MOVED = "naive, level moved"
EXPOSED_FIT = {"batch_size": 512, "epochs": 8, "patience": 2}


def coat_ways(positive_share: float) -> dict[str, dict[str, Any] | None]:
    bayes = {"propensity": {"kind": "naive_bayes", "positive_share": positive_share}}
    return {
        "naive": None,
        "ips popularity": {"kind": "ips", "propensity": {"kind": "popularity"}},
        "ips naive_bayes": {"kind": "ips", **bayes},
        "ips learned": {"kind": "ips", "propensity": {"kind": "learned"}},
        "snips naive_bayes": {"kind": "snips", **bayes},
        "doubly_robust naive_bayes": {"kind": "doubly_robust", **bayes},
        "causal_balancing popularity": {"kind": "causal_balancing", "propensity": {"kind": "popularity"}},
        "causal_balancing naive_bayes": {"kind": "causal_balancing", **bayes},
        "causal_balancing naive_bayes, imputation": {"kind": "causal_balancing", "imputation": 1, **bayes},
    }


EXPOSED_WAYS: dict[str, dict[str, Any] | None] = {
    "naive": None,
    "ips examination": {"kind": "ips", "propensity": {"kind": "examination"}},
    "ips logged": {"kind": "ips", "propensity": {"kind": "logged"}},
    "ips popularity": {"kind": "ips", "propensity": {"kind": "popularity"}},
    "doubly_robust logged": {"kind": "doubly_robust", "propensity": {"kind": "logged"}},
    "causal_balancing logged": {"kind": "causal_balancing", "propensity": {"kind": "logged"}},
}


class Quiet:
    """A training whose progress nobody watches; `done` counts its steps."""

    done = 0

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        self.done = step

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        pass


class Bench:
    """A dataset, and the training of rankers on it."""

    def __init__(self, data: dict[str, Any], task: str, work: Path):
        from pipelines import stages
        from pipelines.workspace import Workspace, open_dataset

        self.section, self.task, self.work = data, task, work
        workspace = Workspace(work)
        config = self.config({}, 0)
        stages.prepare(config, work / "raw", workspace)
        self.data = open_dataset(workspace, config)

    def config(self, ranker: dict[str, Any], seed: int) -> Any:
        from recsys.config import RunConfig

        tree = {"name": "debias", "max_history": MAX_HISTORY, "seed": seed, "data": self.section}
        return RunConfig.model_validate({**tree, "ranker": {**RANKER, "tasks": {self.task: 1.0}, **ranker}})

    def train(self, ranker: dict[str, Any], seed: int) -> tuple[float, Any, float]:
        """The best validation, the test's probability_N, and seconds a step."""
        from safetensors.torch import load_file

        from pipelines import models
        from pipelines.train import EVALUATION_BATCH, train_ranker
        from recsys import evaluate
        from recsys.columns import TEST
        from recsys.loader import ExampleLoader
        from recsys.train.distributed import process_group
        from recsys.train.loop import MODEL_FILE

        config, out, quiet = self.config(ranker, seed), self.work / "ranker", Quiet()
        shutil.rmtree(out, ignore_errors=True)
        with process_group() as device:
            start = time.process_time()
            manifest = train_ranker(config, self.data, out, device=device, progress=quiet)
            seconds = (time.process_time() - start) / max(1, quiet.done)
            graph = models.ranking_graph(config, self.data, load_file(out / MODEL_FILE)).to(device)
            loader = ExampleLoader(
                self.data, tasks=[self.task], split=TEST, max_history=MAX_HISTORY, batch_size=EVALUATION_BATCH, seed=0
            )
            return manifest["best"], evaluate.predict(graph, loader).probability_XT[:, 0], seconds

    def judge(self, truth_N: Any = None) -> Any:
        """Of the test's rows, by default against their label."""
        import numpy as np

        from benchmarks.judged import Judge
        from recsys.columns import TEST, USER, label
        from recsys.metrics.resample import draw_users

        row_N = self.data.example_rows(TEST)
        user_N = np.unique(self.data.examples[USER][row_N], return_inverse=True)[1]
        times_RU = draw_users(int(user_N.max()) + 1, REPLICATES, np.random.default_rng(DRAW_SEED))
        truth_N = self.data.examples[label(self.task)][row_N] if truth_N is None else truth_N
        return Judge(truth_N.astype(float), user_N, times_RU)


def coat(data: str, work: str, seeds: int) -> dict[str, Any]:
    from benchmarks import coat as log

    folder = _fresh(Path(work))
    positive_share = log.write(Path(data), folder / "raw")
    bench = Bench(log.DATA, "like", folder)
    scores: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for way, debias in coat_ways(positive_share).items():
        tried = [bench.train({**trial, "debias": debias}, TUNING_SEED) for trial in TRIALS]
        best = max(range(len(TRIALS)), key=lambda number: tried[number][0])
        runs = [bench.train({**TRIALS[best], "debias": debias}, seed) for seed in range(1, seeds + 1)]
        scores[way] = [score_N for _, score_N, _ in runs]
        facts[way] = _facts(runs) | {"trial": best, "tuning": [valid for valid, _, _ in tried]}
        if way == "naive":
            scores[MOVED] = [moved(score_N, _share(bench, "like"), positive_share) for score_N in scores[way]]
            facts[MOVED] = facts[way] | {"mean": [float(s.mean()) for s in scores[MOVED]]}
    judge = bench.judge()
    found = judge.compared(["MSE", "AUC", "NDCG@5"], scores)
    known = {"positive_share_of_slice": positive_share, "positive_share_of_test": float(judge.truth_N.mean())}
    return {"found": found, "facts": facts, "rows": len(judge.truth_N), "log_share": _share(bench, "like"), **known}


def exposed(work: str, seeds: int) -> dict[str, Any]:
    from benchmarks import exposed as log

    folder = _fresh(Path(work))
    log.write(folder / "raw")
    bench = Bench(log.DATA, "click", folder)
    scores, facts = {}, {}
    for way, debias in EXPOSED_WAYS.items():
        runs = [bench.train({"dim": 16, "fit": EXPOSED_FIT, "debias": debias}, seed) for seed in range(1, seeds + 1)]
        scores[way], facts[way] = [score_N for _, score_N, _ in runs], _facts(runs)
    judge = bench.judge(log.relevance(folder / "raw", bench.data))
    found = judge.compared(["MSE", "rank correlation", "NDCG@5"], scores)
    known = {"mean_relevance": float(judge.truth_N.mean()), "log_share": _share(bench, "click")}
    return {"found": found, "facts": facts, "rows": len(judge.truth_N), **known}


def moved(score_N: Any, log_share: float, true_share: float) -> Any:
    """The log odds moved by the difference of the two shares' log odds."""
    odds_N = score_N / (1 - score_N) * true_share / (1 - true_share) * (1 - log_share) / log_share
    return odds_N / (1 + odds_N)


def _share(bench: Bench, task: str) -> float:
    from recsys.columns import TRAIN, label

    return float(bench.data.examples[label(task)][bench.data.example_rows(TRAIN)].mean())


def _facts(runs: list[tuple[float, Any, float]]) -> dict[str, Any]:
    return {
        "ms_per_step": min(seconds for _, _, seconds in runs) * 1000,
        "mean": [float(score_N.mean()) for _, score_N, _ in runs],
    }


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.debias", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the coat data set; without it only the simulated world is run")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs of each way")
    parser.add_argument("--only", choices=["coat", "simulated"], help="one of the two experiments")
    parser.add_argument("--work", type=Path, default=measure.OUT / "debias", help="folder for logs and datasets")
    args = parser.parse_args()
    if args.data is None and args.only == "coat":
        sys.exit("--only coat needs --data, the folder of the coat data set")
    os.environ["OMP_NUM_THREADS"] = "1"
    tables, results = [], {}
    if args.data is not None and args.only != "simulated":
        run = measure.call(
            "benchmarks.debias", "coat", 1, data=args.data.resolve(), work=args.work.resolve() / "coat", seeds=args.seeds
        )
        title = f"Coat, {run.result['rows']:,} random ratings, {args.seeds} seeds"
        tables.append((title, *_table(run.result)))
        results["coat"] = {**run.numbers(), **run.result}
    if args.only != "coat":
        run = measure.call("benchmarks.debias", "exposed", 1, work=args.work.resolve() / "simulated", seeds=args.seeds)
        title = f"Simulated, {run.result['rows']:,} random pairs judged by their true relevance, {args.seeds} seeds"
        tables.append((title, *_table(run.result)))
        results["simulated"] = {**run.numbers(), **run.result}
    publish("debias", tables, {"seeds": args.seeds, "trials": TRIALS, "draws": REPLICATES, **results})


def _table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    metrics = list(next(iter(result["found"].values())))
    base = next(iter(result["facts"].values()))["ms_per_step"]
    rows = []
    for way, found in result["found"].items():
        facts = result["facts"][way]
        cells = [cell for metric in metrics for cell in _cells(found[metric])]
        rows.append([way, *cells, f"{sum(facts['mean']) / len(facts['mean']):.3f}", f"{facts['ms_per_step'] / base:.2f}"])
    return ["way", *(cell for metric in metrics for cell in (metric, "difference")), "mean prediction", "step time"], rows


def _cells(entry: dict[str, Any]) -> tuple[str, str]:
    mean = f"{entry['mean']:.4f}" + (f" ± {entry['spread']:.4f}" if entry["spread"] is not None else "")
    gap = entry.get("difference")
    if gap is None:
        return mean, ""
    return mean, f"{gap['mean']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]" + (" shown" if gap["shown"] else "")


if __name__ == "__main__":
    main()
