"""Does a generator that writes semantic ids match the retriever, and what does each way of policy training add to it?

    python -m benchmarks.generate --config apao-office --data FOLDER --seeds 1 2 3
    python -m benchmarks.generate --config apao-office --data FOLDER --policies supervised beam-rank --parent retriever

For every seed the retriever, the ids and the generator of the config are trained, and each policy goes on from the same parent.
Policies learn from the validation events of most users; those of the others decide whether a policy is kept, and a test event
is never learned from. `supervised` sees the very same events without any proposals or rewards (likelihood alone), so that the
others' difference to it is what reinforcement adds. The whole catalogue is ranked, seen items out. Differences are means over
seeds with a 95 % interval over users drawn anew ("shown": it leaves out 0 and all seeds agree). A finished run is kept in
--work and not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import measure
from benchmarks.table import compared, publish

POLICIES: dict[str, dict[str, Any]] = {
    "supervised": {"objective": {"kind": "dpo", "beta": 1e-6, "likelihood": 1.0}, "proposals": {"kind": "beam", "count": 16}},
    "beam-rank": {"objective": {"kind": "rere"}, "rewards": [{"kind": "hit"}, {"kind": "rank"}]},
    "beam": {"objective": {"kind": "rere"}, "rewards": [{"kind": "hit"}]},
    "sample": {"objective": {"kind": "rere"}, "proposals": {"kind": "sample"}, "rewards": [{"kind": "hit"}]},
    "training-events": {"objective": {"kind": "rere"}, "prompts": "training"},
    "pg_rank": {"objective": {"kind": "pg_rank"}, "rewards": [{"kind": "hit"}]},
    "remax": {"objective": {"kind": "remax"}, "rewards": [{"kind": "hit"}]},
    "s_dpo": {"objective": {"kind": "s_dpo"}, "proposals": {"kind": "beam"}},
    "lipo": {"objective": {"kind": "lipo"}, "rewards": [{"kind": "hit"}]},
}
FIT = {"epochs": 4, "batch_size": 64, "learning_rate": 1e-4, "embedding_learning_rate": 3e-3, "patience": 2}
K = 10
LINKED = (
    "dataset",
    "data_report",
    "retriever",
    "semantic_ids",
    "generator",
)  # what a policy's workspace takes from its parent's


def trained(config: str, data: str, work: str, part: str, sets: list[str], parent: str | None = None) -> dict[str, Any]:
    """Train a part in its workspace, which takes what came before it from the workspace `parent`, and judge it on the test
    split; every user's values go to PART.npz."""
    from pipelines import stages
    from pipelines.candidates import candidate_graph
    from pipelines.workspace import Workspace, config_path
    from recsys import evaluate
    from recsys.columns import TEST
    from recsys.config import load
    from recsys.dataset import Dataset

    settings, workspace = load(config_path(config), *sets), Workspace(Path(work))
    workspace.root.mkdir(parents=True, exist_ok=True)
    for name in LINKED if parent else ():
        if (Path(parent or "") / name).exists() and not (workspace.root / name).exists():
            (workspace.root / name).symlink_to((Path(parent or "") / name).resolve())
    if not workspace.dataset.exists():
        stages.prepare(settings, Path(data), workspace)
    store = f"sqlite:///{workspace.root / 'mlflow.db'}"
    manifest = stages.train(settings, workspace, only=part, console=None, uri=store)[part]
    dataset = Dataset(workspace.dataset)
    judged = evaluate.judged_users(dataset, TEST, filter_seen=True, request_time=settings.evaluation.request_time)
    graph = candidate_graph(settings, dataset, workspace, part)
    item_UK = evaluate.recommend(graph, judged, k=K, max_history=settings.max_history, filter_seen=True)
    per_user = evaluate.retrieval_metrics(item_UK, judged, [K], dataset.num_items)[1]
    np.savez(workspace.root / f"{part}.npz", allow_pickle=False, **{name: per_user[f"{name}@{K}"] for name in ("HR", "NDCG")})
    facts = {name: manifest[name] for name in ("seconds", "epochs", "best")} | {"guard": manifest.get("guard")}
    if part == "generator":
        facts["ids"] = json.loads((workspace.semantic_ids / "quality.json").read_text())
    (workspace.root / f"{part}.json").write_text(json.dumps(facts) + "\n")
    return facts


def _told(difference: dict[str, Any]) -> str:
    return "{mean:+.4f} ({low:+.4f} to {high:+.4f})".format(**difference) + (" shown" if difference["shown"] else "")


def _row(name: str, values: dict[str, np.ndarray], base: dict[str, np.ndarray] | None) -> tuple[list[str], dict[str, Any]]:
    facts: dict[str, Any] = {"model": name, **{metric: float(value_SU.mean()) for metric, value_SU in values.items()}}
    if base is not None:
        facts |= {f"{metric}_difference": compared(values[metric], base[metric]) for metric in values}
    told = [_told(facts[f"{metric}_difference"]) if base is not None else "" for metric in values]
    return [name, f"{facts['HR']:.4f}", told[0], f"{facts['NDCG']:.4f}", told[1]], facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="name of a shipped config with a generator, or a file")
    parser.add_argument("--data", type=Path, required=True, help="folder of its raw logs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--parent", choices=["retriever", "generator"], default="generator", help="what the policies begin from"
    )
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), help="of: " + ", ".join(POLICIES))
    parser.add_argument("--work", type=Path, default=measure.DATA / "generate", help="where finished runs are kept")
    parser.add_argument("--set", dest="sets", action="append", default=[], help="override a config key; repeatable")
    options = parser.parse_args()
    name = Path(options.config).stem
    found: dict[str, list[Path]] = {}
    for seed in options.seeds:
        base = options.work / name / f"seed-{seed}"
        runs: list[tuple[str, str, Path, list[str]]] = [(part, part, base, []) for part in ("retriever", "generator")]
        for policy in options.policies:
            spec = {"parent": options.parent, "prompts": "validation", "fit": FIT} | POLICIES[policy]
            folder = options.work / name / f"seed-{seed}-{options.parent}-{policy}"
            runs.append((policy, "policy", folder, [f"policy={yaml.safe_dump(spec, default_flow_style=True)}"]))
        for label, part, folder, own in runs:
            if not (folder / f"{part}.npz").exists():
                sets = [f"seed={seed}", *(own or ["policy=null"]), *options.sets]
                measure.call(
                    "benchmarks.generate", "trained", 1, config=options.config, data=options.data, work=folder, part=part,
                    sets=sets, parent=None if folder == base else base,
                )  # fmt: skip
            found.setdefault(label, []).append(folder / f"{part}.npz")
    values = {
        label: {metric: np.stack([np.load(path)[metric] for path in paths]) for metric in ("HR", "NDCG")}
        for label, paths in found.items()
    }
    facts: dict[str, Any] = {"config": name, "seeds": options.seeds, "parent": options.parent}
    rows, facts["parts"] = zip(*(_row(label, values[label], None if label == "retriever" else values["retriever"])
                                 for label in ("retriever", "generator")), strict=True)  # fmt: skip
    columns = [f"HR@{K}", "to the base", f"NDCG@{K}", "to the base"]
    tables: list[Any] = [(f"{name}: parts (base: the retriever)", ["part", *columns], rows)]
    bases = [options.parent, *(["supervised"] if "supervised" in options.policies else [])]
    for base_name in bases if options.policies else []:
        kept = [label for label in options.policies if label != base_name]
        rows, facts[f"policies_to_{base_name}"] = zip(
            *(_row(label, values[label], values[base_name]) for label in kept), strict=True
        )
        told = [[*row, _kept(found[row[0]])] for row in rows]
        tables.append((f"{name}: policies (base: {base_name})", ["policy", *columns, "kept"], told))
    publish(f"generate-{name}-{options.parent}", tables, facts)


def _kept(paths: list[Path]) -> str:
    """In how many seeds the guard kept the policy."""
    guards = [json.loads(path.with_suffix(".json").read_text())["guard"] for path in paths]
    return f"{sum(guard['kept'] == 'policy' for guard in guards)} of {len(guards)}"


if __name__ == "__main__":
    main()
