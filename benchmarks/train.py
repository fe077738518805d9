"""Training of SASRec: targets per second beside a plain PyTorch model and other libraries, taken in turns in one run.

    python -m benchmarks.train [--data FOLDER] [--peers FOLDER --peers-venv FOLDER]

--data holds ratings.parquet with MovieLens columns (user_id, movie_id, rating, timestamp in seconds); without it a log of the
shape of MovieLens-1M is simulated. --peers holds scripts NAME_sasrec.py, which take the options that `Bench.peer` passes and
write a JSON object with `seconds_per_epoch`, `targets_per_epoch`, `test.filtered.NDCG@10` and `peak_rss_mb`; each runs with
PEERS_VENV/NAME/bin/python and is left out where that is missing.

Leave-one-out, the same model everywhere, full softmax, equal numbers of epochs; every run is a process of its own. Ours
predicts all training events of a user each epoch, the others the last `length`: compare targets per second. Quality is NDCG@10
of the model of the last epoch, all items ranked, those of the history left out. Shapes: U = users, I = items, E = events.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import measure

OURS, HALF, PLAIN = "ours", "ours, bfloat16", "plain PyTorch"
RATINGS = "ratings.parquet"
PEER_SUFFIX = "_sasrec"
GENRES = 18
FEWEST, LONGEST_SHARE = 20, 0.6  # events of a simulated user: at least, and as a share of the catalogue at most


@dataclass(frozen=True)
class Trained:
    """One run: mean seconds of an epoch, its targets, quality after the last one."""

    seconds: float
    targets: int
    ndcg: float
    peak_mib: int

    @property
    def speed(self) -> float:
        return self.targets / self.seconds


def simulate(path: str, users: int, items: int, events: int, seed: int) -> int:
    """Write about `events` ratings. Nobody rates an item twice; every user likes some genres more than others. Items lie on a
    circle and a user goes round it once, so that what comes next can be learnt. Returns the number of rows."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(seed)
    activity_U = random.lognormal(sigma=1.0, size=users)
    fewest = min(FEWEST, events // users)
    count_U = fewest + (activity_U * (events - fewest * users) / activity_U.sum()).astype(int)
    count_U = np.minimum(count_U, int(LONGEST_SHARE * items))
    place_I, genre_I = random.permutation(items) / items, random.integers(0, GENRES, items)
    popularity_I = -0.8 * np.log1p(random.permutation(items))
    chosen = []
    for count, home in zip(count_U, random.random(users), strict=True):
        score_I = popularity_I + random.normal(size=GENRES)[genre_I] + random.gumbel(size=items)
        item = np.argpartition(-score_I, count - 1)[:count]
        walked = (place_I[item] - home) % 1.0 + random.normal(scale=0.005, size=count)
        chosen.append(item[np.argsort(walked)])
    step_E = np.concatenate([np.arange(count) for count in count_U])
    pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(1, users + 1, dtype=np.int32), count_U),
            "movie_id": np.concatenate(chosen).astype(np.int32) + 1,
            "rating": random.integers(1, 6, int(count_U.sum()), dtype=np.int8),
            "timestamp": np.repeat(random.integers(956_700_000, 1_000_000_000, users), count_U) + 60 * step_E,
        }
    ).write_parquet(path)
    return int(count_U.sum())


def command(arguments: list[str]) -> None:
    """What `recsys` does with these arguments, in a process that `measure` watches."""
    from pipelines.cli import app
    from pipelines.terminal import console

    console.quiet = True
    app(arguments, standalone_mode=False)


def facts(dataset: str) -> dict[str, int]:
    from recsys.columns import FIRST_ID
    from recsys.dataset import Dataset

    data = Dataset(Path(dataset))
    return {
        "users": data.num_users - FIRST_ID, "items": data.num_items - FIRST_ID, "events": int(data.length_U.sum()),
        "targets": int(data.train_length_U.sum()),
    }  # fmt: skip


class Bench:
    """The ways to train, each as a function of the round."""

    def __init__(self, args: argparse.Namespace, raw: Path, work: Path):
        self.args, self.raw, self.work = args, raw, work
        self.config, self.workspace = work / "train.yaml", work / "run"
        self.precision = "float32"
        self.recsys("prepare", "--data", str(raw))
        self.facts = measure.call("benchmarks.train", "facts", args.threads, dataset=self.workspace / "dataset").result

    def recsys(self, name: str, *options: str) -> measure.Measured:
        self.config.write_text(json.dumps(self._config()) + "\n")  # YAML too
        sets = [part for setting in self.args.set for part in ("--set", setting)]
        given = [name, "--config", str(self.config), "--workspace", str(self.workspace), *sets, *options]
        return measure.call("benchmarks.train", "command", self.args.threads, arguments=given)

    def _config(self) -> dict[str, Any]:
        args = self.args
        return {
            "name": "bench-train", "seed": args.seed, "max_history": args.length,
            "data": {
                "events": {"path": RATINGS, "user": "user_id", "item": "movie_id", "time": "timestamp", "time_unit": "s"},
                "split": {"kind": "leave_one_out"},
            },
            "retriever": {
                "encoder": {
                    "kind": "sasrec", "dim": args.dim, "blocks": args.blocks, "heads": args.heads, "dropout": args.dropout,
                    "feed_forward": args.feed_forward,
                },
                "loss": {"kind": "full_softmax"},
                "fit": {  # validated once, after the last epoch: its model is the result, as the others' is
                    "epochs": args.epochs, "evaluate_every": args.epochs, "batch_size": args.batch,
                    "learning_rate": args.lr, "embedding_learning_rate": 0.02, "precision": self.precision,
                },
            },
        }  # fmt: skip

    def ours(self, precision: str = "float32") -> Trained:
        self.precision = precision
        shutil.rmtree(self.workspace / "retriever", ignore_errors=True)
        store = ("--store", f"sqlite:///{self.work.resolve()}/mlflow.db")
        run = self.recsys("train", "--only", "retriever", *store)
        self.recsys("evaluate", *store)
        manifest = json.loads((self.workspace / "retriever" / "manifest.json").read_text())
        metrics = json.loads((self.workspace / "metrics" / "metrics.json").read_text())
        seconds = manifest["seconds"] / manifest["epochs"]
        return Trained(seconds, self.facts["targets"], metrics["retrieval"]["model"]["NDCG@10"], run.peak_mib)

    def plain(self) -> Trained:
        args = self.args
        run = measure.call(
            "benchmarks.plain_sasrec", "train", args.threads, dataset=self.workspace / "dataset", max_len=args.length,
            **{name: getattr(args, name) for name in (*SHARED, "feed_forward")},
        )  # fmt: skip
        return Trained(**run.result, peak_mib=run.peak_mib)

    def peer(self, script: Path, python: Path) -> Trained:
        out = self.work / f"{script.stem}.json"
        options = {"data": self.raw, "out": out, "max-len": self.args.length, "threads": self.args.threads}
        options |= {name: getattr(self.args, name) for name in SHARED}
        given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        done = subprocess.run([python, script, *given], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{script} failed: {done.stderr.strip().splitlines()[-1:]}; leave it out with --leave-out {_name(script)}")
        found = json.loads(out.read_text())
        ndcg = found["test"]["filtered"]["NDCG@10"]
        return Trained(found["seconds_per_epoch"], found["targets_per_epoch"], ndcg, found["peak_rss_mb"])


SHARED = ("epochs", "dim", "blocks", "heads", "batch", "lr", "dropout", "seed")  # options with the same name everywhere


def _name(script: Path) -> str:
    return script.stem.removesuffix(PEER_SUFFIX)


def _peers(args: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """Script and interpreter of each peer that can run; says which cannot."""
    if args.peers is None:
        return {}
    found = {}
    for script in sorted(args.peers.glob(f"*{PEER_SUFFIX}.py")):
        python = (args.peers_venv or args.peers) / _name(script) / "bin" / "python"
        if _name(script) in args.leave_out:
            continue
        if python.exists():
            found[_name(script)] = script.resolve(), python.absolute()
        else:
            print(f"{_name(script)} is left out: there is no {python}", file=sys.stderr)
    if not found:
        sys.exit(f"--peers {args.peers} holds no NAME{PEER_SUFFIX}.py with an environment: name another folder or --peers-venv")
    return found


def _middle(runs: list[Trained]) -> Trained:
    def median(name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs)

    return Trained(median("seconds"), runs[0].targets, median("ndcg"), max(run.peak_mib for run in runs))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder with {RATINGS}; without it a log is simulated")
    parser.add_argument("--users", type=int, default=6040, help="of the simulated log")
    parser.add_argument("--items", type=int, default=3706, help="of the simulated log")
    parser.add_argument("--events", type=int, default=1_000_000, help="of the simulated log")
    parser.add_argument("--peers", type=Path, help="folder with the peers' scripts")
    parser.add_argument("--peers-venv", type=Path, help="folder with an environment for each peer", metavar="FOLDER")
    parser.add_argument("--leave-out", nargs="+", default=[], help="peers not to run", metavar="NAME")
    parser.add_argument("--work", type=Path, default=measure.OUT / "train", help="folder for datasets and runs")
    parser.add_argument("--rounds", type=int, default=3, help="every way runs once a round; figures are medians")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--feed-forward", type=int, default=1, help="inner width in multiples of dim; the peers' is 1")
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--set", action="append", default=[], help="a setting of ours, as in recsys train", metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    peers = _peers(args)
    work: Path = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args, args.data.resolve() if args.data else _simulated(args, work), work)
    ways: dict[str, Callable[[], Trained]] = {OURS: bench.ours, HALF: partial(bench.ours, "bfloat16"), PLAIN: bench.plain}
    ways |= {name: partial(bench.peer, *pair) for name, pair in peers.items()}
    runs: dict[str, list[Trained]] = {name: [] for name in ways}
    for number in range(args.rounds):
        for name, way in ways.items():
            runs[name].append(way())
            print(f"round {number + 1}: {name}, {runs[name][-1].speed:,.0f} targets/s", file=sys.stderr)
    _report(args, bench.facts, {name: _middle(each) for name, each in runs.items()}, runs)


def _simulated(args: argparse.Namespace, work: Path) -> Path:
    raw = work / f"log-{args.users}-{args.items}-{args.events}-{args.seed}"
    if not (raw / RATINGS).exists():
        raw.mkdir(parents=True, exist_ok=True)
        shape = {name: getattr(args, name) for name in ("users", "items", "events", "seed")}
        measure.call("benchmarks.train", "simulate", args.threads, path=raw / f".{RATINGS}", **shape)
        (raw / f".{RATINGS}").rename(raw / RATINGS)
    return raw


def _report(
    args: argparse.Namespace, shape: dict[str, int], middle: dict[str, Trained], runs: dict[str, list[Trained]]
) -> None:
    ratios = {name: middle[OURS].speed / each.speed for name, each in middle.items()}
    settings = {name: getattr(args, name) for name in (*SHARED, "feed_forward", "length", "threads", "rounds", "set")}
    measure.report(
        "train",
        f"SASRec, {shape['events']:,} events of {shape['users']:,} users and {shape['items']:,} items, {args.epochs} epochs, "
        f"{args.threads} threads, medians of {args.rounds}",
        ["way", "targets/s", "ours is x", "s/epoch", "targets/epoch", "NDCG@10", "peak MiB"],
        [
            [
                name, f"{each.speed:,.0f}", f"{ratios[name]:.2f}", f"{each.seconds:.2f}", f"{each.targets:,}",
                f"{each.ndcg:.4f}", f"{each.peak_mib:,}",
            ]
            for name, each in middle.items()
        ],
        {
            "data": args.data.name if args.data else "simulated", **shape, **settings,
            "ways": {
                name: {
                    "targets_per_s": round(each.speed), "seconds_per_epoch": round(each.seconds, 3),
                    "targets_per_epoch": each.targets, "ndcg_at_10": round(each.ndcg, 5), "peak_mib": each.peak_mib,
                    "targets_per_s_of_rounds": [round(run.speed) for run in runs[name]],
                }
                for name, each in middle.items()
            },
            "ratio": {name: round(ratio, 2) for name, ratio in ratios.items() if name != OURS},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
