"""Ways to share between the ranker's tasks, and to balance them, on one dataset with one split: which is really better?

    python -m benchmarks.multitask --data FOLDER --config kuairand --seeds 1 2 3 --sharing shared_bottom mmoe ple dtrn

--sharing and --balance take kinds, or settings such as "{kind: esmm, given: {long_view: click}}"; every pair of them is trained
with every seed as the config says otherwise, each run in a process of its own, and judged on the test split. A sharing whose
`hidden` is not given takes that of the config's own, so that towers and experts are equally wide; dense parameters are told.

Every other pair is compared with the first: mean difference over the seeds, with a 95 % interval over users drawn anew (of
twenty such intervals one misses by chance). "no difference shown": the interval holds 0, the seeds' values overlap, or there
are too few users with both classes to trust the interval.

A finished run is kept in --work and not trained again, so the same command goes on where it was killed; remove the folder to
start anew, as after a change of the code. Shapes: N = examples that have the task's label, T = tasks, S = seeds, R = draws.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measure

if TYPE_CHECKING:
    from recsys.config import RunConfig

DRAW_SEED = 0  # of the users drawn anew, the same for all ways
FEWEST_USERS = 30  # with both classes: the interval of a handful of users is too narrow
METRICS = ("AUC", "GAUC")


class Narrator:
    """Reports of the training loop, a line per validation."""

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        pass

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        print(f"  epoch {epoch}: validation AUC {metrics.get('valid/AUC/mean', float('nan')):.4f}", file=sys.stderr)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What a person can mend ends the process with a sentence, not with a traceback."""
    from recsys.errors import InputError

    try:
        yield
    except InputError as error:
        sys.exit(str(error))


def planned(
    config: str, raw: str, work: str, sets: list[str], sharing: list[str], balance: list[str], seeds: list[int]
) -> dict[str, Any]:  # fmt: skip
    """Prepare the dataset; return its facts and the runs, each with its overrides of the config and a key of all that its
    result depends on."""
    from pipelines import stages
    from pipelines.workspace import Workspace, config_path, identity, open_dataset
    from recsys.artefact import fingerprint
    from recsys.columns import FIRST_ID, TEST
    from recsys.config import load

    with _one_sentence():
        base = load(config_path(config), *sets)
        ways = {
            _name(s, sharing) + (f" {_name(b, balance)}" if len(balance) > 1 else ""): _overrides(config, sets, s, b, base)
            for s in sharing
            for b in balance
        }
        workspace = Workspace(Path(work))
        stages.prepare(base, Path(raw), workspace)
        data = open_dataset(workspace, base)
        runs = []
        for way, overrides in ways.items():
            for seed in seeds:
                run = load(config_path(config), *overrides, f"seed={seed}")
                depends = {**identity(run, data, "ranker"), "fit": run.ranker.fit.model_dump(mode="json"), "seed": seed}
                runs.append({"way": way, "seed": seed, "overrides": overrides, "key": fingerprint(depends)})
    facts = {
        "users": data.num_users - FIRST_ID, "items": data.num_items - FIRST_ID,
        "test_examples": len(data.example_rows(TEST)), "data_fingerprint": data.manifest["data_fingerprint"],
    }  # fmt: skip
    return {"facts": facts, "tasks": [task for task in base.tasks if task not in base.regression], "runs": runs}


def _name(chosen: str, choices: Sequence[str]) -> str:
    """Its kind, where no other has it too."""
    kinds = {each: re.sub(r"^{\s*kind:\s*(\w+).*", r"\1", each) for each in choices}
    return chosen if list(kinds.values()).count(kinds[chosen]) > 1 else kinds[chosen]


def _overrides(config: str, sets: list[str], sharing: str, balance: str, base: "RunConfig") -> list[str]:
    """The config's overrides of one way. Raises InputError where it is no config."""
    from pipelines.workspace import config_path
    from recsys.config import load

    chosen = [*sets, f"ranker.sharing={_section(sharing)}", f"ranker.balance={_section(balance)}"]
    spec = load(config_path(config), *chosen).ranker.sharing
    if "hidden" not in spec.model_fields_set:
        chosen.append(f"ranker.sharing.hidden={base.ranker.sharing.hidden}")
    return chosen


def _section(text: str) -> str:
    return text if text.startswith("{") else f"{{kind: {text}}}"


def run(config: str, work: str, overrides: list[str], seed: int, key: str) -> None:
    """Train one ranker; keep its answers for the test split and what it took, not the model."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from pipelines import models
    from pipelines.train import EVALUATION_BATCH, train_ranker
    from pipelines.workspace import Workspace, config_path, open_dataset
    from recsys import evaluate
    from recsys.columns import TEST
    from recsys.config import load
    from recsys.loader import ExampleLoader
    from recsys.train.distributed import TABLES, process_group
    from recsys.train.loop import MODEL_FILE

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    folder = Path(work)
    with _one_sentence(), process_group() as device:
        chosen = load(config_path(config), *overrides, f"seed={seed}")
        data, checkpoint = open_dataset(Workspace(folder), chosen), folder / "training" / key
        manifest = train_ranker(chosen, data, checkpoint, device=device, progress=Narrator())
        state = load_file(checkpoint / MODEL_FILE)
        loader = ExampleLoader(
            data, tasks=list(chosen.tasks), split=TEST, max_history=chosen.ranker_history, batch_size=EVALUATION_BATCH,
            seed=seed, behaviours=chosen.ranker.sharing.reads_behaviours, dense=chosen.ranker_features,
        )  # fmt: skip
        found = evaluate.predict(models.ranking_graph(chosen, data, state).to(device), loader)
    kept = {
        "tasks": list(chosen.tasks), "seconds": manifest["seconds"], "epochs": manifest["epochs"], "valid": manifest["best"],
        "dense_parameters": sum(tensor.numel() for name, tensor in state.items() if not name.startswith(TABLES)),
    }  # fmt: skip
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    np.save(runs / f"{key}.npy", found.probability_XT)
    scratch = runs / f".{key}.json"  # the run counts as finished once this is in its place
    scratch.write_text(json.dumps(kept) + "\n")
    scratch.rename(runs / f"{key}.json")
    shutil.rmtree(checkpoint)


def compared(work: str, tasks: list[str], ways: dict[str, list[str]], replicates: int) -> dict[str, Any]:
    """By task, metric and way (name -> keys of its runs, one per seed): values and their difference to the first way's. A task
    without both classes in the test split has no metric and is left out."""
    import numpy as np

    from recsys.columns import TEST, USER, label
    from recsys.dataset import Dataset

    folder = Path(work)
    data = Dataset(folder / "dataset")
    row_X = data.example_rows(TEST)
    columns = json.loads((folder / "runs" / f"{next(iter(ways.values()))[0]}.json").read_text())["tasks"]
    found: dict[str, Any] = {}
    for task in tasks:
        label_X = data.examples[label(task)][row_X]
        exists_X = ~np.isnan(label_X)
        label_N, user_N = label_X[exists_X], np.unique(data.examples[USER][row_X][exists_X], return_inverse=True)[1]
        if len(np.unique(label_N)) < 2:
            continue
        scores = {
            way: [np.load(folder / "runs" / f"{key}.npy", mmap_mode="r")[exists_X, columns.index(task)] for key in keys]
            for way, keys in ways.items()
        }
        found[task] = _of_task(scores, label_N, user_N, replicates)
    return found


def _of_task(scores: dict[str, list[Any]], label_N: Any, user_N: Any, replicates: int) -> dict[str, Any]:
    """By metric and way; `scores` are score_N of each seed."""
    import numpy as np

    from recsys.metrics import paired
    from recsys.metrics.classification import auc, gauc
    from recsys.metrics.resample import draw_users
    from recsys.metrics.runs_of_scores import user_aucs

    users = int(user_N.max()) + 1
    auc_U, _ = user_aucs(next(iter(scores.values()))[0], label_N, user_N, users)
    judged = int((~np.isnan(auc_U)).sum())
    times_RU = draw_users(users, replicates, np.random.default_rng(DRAW_SEED))
    found: dict[str, Any] = {}
    for metric in METRICS:
        drawn = paired.drawn_auc if metric == "AUC" else paired.drawn_gauc
        first_S: Any = None
        for way, each in scores.items():
            way_S = np.array([auc(s, label_N) if metric == "AUC" else gauc(s, label_N, user_N) for s in each])
            way_SR = np.stack([drawn(s, label_N, user_N, times_RU) for s in each])
            if np.isnan(way_S).any():  # no user has both classes
                break
            entry = {
                "users": judged,
                "mean": way_S.mean(),
                "spread": way_S.std(ddof=1) if len(way_S) > 1 else None,
                "seeds": way_S.tolist(),
            }
            if first_S is None:
                first_S, first_SR = way_S, way_SR
            else:
                gap = paired.difference(way_S, first_S, way_SR, first_SR)
                entry["difference"] = gap._replace(shown=gap.shown and judged >= FEWEST_USERS)._asdict()
            found.setdefault(metric, {})[way] = entry
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.multitask", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the raw logs, as in recsys prepare")
    parser.add_argument("--config", required=True, help="a shipped config, or a file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="each way is trained with each of them")
    parser.add_argument("--sharing", nargs="+", default=["shared_bottom", "mmoe", "ple", "dtrn"], help="the first is the base")
    parser.add_argument("--balance", nargs="+", default=["fixed"], help="each sharing is trained with each of them")
    parser.add_argument("--set", action="append", default=[], help="a setting of all runs", metavar="KEY=VALUE")
    parser.add_argument("--replicates", type=int, default=200, help="draws of the users")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=measure.OUT / "multitask", help="folder for datasets and finished runs")
    args = parser.parse_args()
    for option in ("seeds", "sharing", "balance"):
        given = getattr(args, option)
        if len(set(given)) < len(given):
            sys.exit(f"--{option} names the same twice in {given}: name each once")
    config = str(Path(args.config).resolve()) if Path(args.config).is_file() else args.config
    work = args.work.resolve() / Path(config).stem
    plan = measure.call(
        "benchmarks.multitask", "planned", args.threads, config=config, raw=args.data.resolve(), work=work, sets=args.set,
        sharing=args.sharing, balance=args.balance, seeds=args.seeds,
    ).result  # fmt: skip
    for number, each in enumerate(plan["runs"], start=1):
        name = f"run {number} of {len(plan['runs'])}, {each['way']}, seed {each['seed']}"
        if (work / "runs" / f"{each['key']}.json").exists():
            print(f"{name}: done before", file=sys.stderr)
            continue
        print(name, file=sys.stderr)
        wanted = {part: each[part] for part in ("overrides", "seed", "key")}
        measure.call("benchmarks.multitask", "run", args.threads, config=config, work=work, **wanted)
    ways: dict[str, list[str]] = {}
    for each in plan["runs"]:
        ways.setdefault(each["way"], []).append(each["key"])
    found = measure.call(
        "benchmarks.multitask", "compared", args.threads, work=work, tasks=plan["tasks"], ways=ways, replicates=args.replicates
    ).result
    kept = {way: [json.loads((work / "runs" / f"{key}.json").read_text()) for key in keys] for way, keys in ways.items()}
    _report(args, Path(config).stem, plan["facts"], found, kept)


def _report(
    args: argparse.Namespace, name: str, facts: dict[str, Any], found: dict[str, Any], kept: dict[str, list[dict[str, Any]]]
) -> None:
    from rich.markup import escape

    rows = [
        [f"{metric} {task}" if not number else "", escape(way), *_cells(entry, len(args.seeds))]
        for task, metrics in found.items()
        for metric, entries in metrics.items()
        for number, (way, entry) in enumerate(entries.items())
    ]
    cost = {
        way: {
            "dense_parameters": runs[0]["dense_parameters"],
            "seconds": statistics.mean(run["seconds"] for run in runs),
            "epochs": [run["epochs"] for run in runs],
        }
        for way, runs in kept.items()
    }
    rows += [
        ["dense parameters" if not number else "", escape(way), f"{each['dense_parameters']:,}", f"{each['seconds']:.0f} s", ""]
        for number, (way, each) in enumerate(cost.items())
    ]
    measure.report(
        f"multitask-{name}",
        f"{facts['test_examples']:,} test examples of {name}, seeds {args.seeds}; difference to {next(iter(kept))} with its "
        "95 % interval over users",
        ["", "way", "mean ± over seeds", "difference", ""],
        rows,
        {
            **facts, "seeds": args.seeds, "set": args.set, "threads": args.threads, "replicates": args.replicates,
            "tasks": found, "ways": cost,
        },
    )  # fmt: skip


def _cells(entry: dict[str, Any], seeds: int) -> list[str]:
    """Mean and spread; difference and interval; what to make of it."""
    mean = f"{entry['mean']:.4f}" + (f" ± {entry['spread']:.4f}" if entry["spread"] is not None else "")
    gap = entry.get("difference")
    if gap is None:
        return [mean, "", ""]
    verdict = "no difference shown" if not gap["shown"] else "better" if gap["mean"] > 0 else "worse"
    if gap["shown"] and seeds == 1:
        verdict += ", one seed"
    return [mean, f"{gap['mean']:+.4f} \\[{gap['low']:+.4f}, {gap['high']:+.4f}]", verdict]


if __name__ == "__main__":
    main()
