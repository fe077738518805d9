"""What a sweep found: the best settings and what they reach, how much each key matters, and every trial."""

import json
import math
import os
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.markup import escape
from rich.table import Table

from pipelines.ablation.run import Trained
from pipelines.sweeping.progress import shown, tally
from pipelines.sweeping.space import override
from pipelines.sweeping.study import best_first, counted, number_of
from pipelines.sweeping.trial import main_metric
from recsys import track
from recsys.config import RunConfig, load
from recsys.dataset import Dataset
from recsys.protocol import Protocol

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipelines.sweeping.plan import Plan

RESULT_FILE, BEST_FILE, PLOT_FILE = "sweep.json", "best.yaml", "sweep.png"
SHOWN = 8  # trials of the table
OPTIMISTIC = (
    "the best of {trials} trials was chosen by its validation value, which flatters it: trust the test split, and further "
    "seeds, by which nothing was chosen"
)


def result(
    config: RunConfig, data: Dataset, plan: "Plan", study: "Study", judged: Mapping[int, Trained], own: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Everything that was found, as JSON. `judged`: by seed the best settings on the test split, the search's seed first."""
    trials, stage = study.get_trials(), plan.space.stage
    ranked = best_first(trials)
    values = plan.space.values(ranked[0].params)
    base = next((trial for trial in ranked if own is not None and trial.params == own), None)
    counts = tally(trials)
    return {
        "sweep": plan.name, "config": config.name, "stage": stage, "metric": main_metric(config, stage),
        "data": data.manifest["data_fingerprint"], "protocol": Protocol.of(config).line, "seed": config.seed,
        "space": plan.space.document(), "counts": counts,
        "seconds": sum(trial.user_attrs.get("seconds") or 0.0 for trial in counted(trials)),
        "best": {
            "trial": number_of(ranked[0]), "valid": ranked[0].values[0], "parameters": values,
            "set": [override(key, value) for key, value in values.items()],
        },
        "config_itself": None if base is None else {"trial": number_of(base), "valid": base.values[0]},
        "test": judged[config.seed].facts["test"],
        "seeds": _seeds(judged),
        "caution": OPTIMISTIC.format(trials=sum(counts.values())),
        "importance": _importance(study),
        "trials": [_row(trial, plan) for trial in sorted(counted(trials), key=number_of)],
    }  # fmt: skip


def _seeds(judged: Mapping[int, Trained]) -> dict[str, Any]:
    """The further seeds alone, since the search's own was chosen by."""
    further = {seed: each.facts for seed, each in list(judged.items())[1:]}
    found: dict[str, Any] = {"each": {str(seed): {"valid": f["best"], "test": f["test"]} for seed, f in further.items()}}
    if further:
        names = [name for name in next(iter(further.values()))["test"] if all(name in f["test"] for f in further.values())]
        columns = {name: [f["test"][name] for f in further.values()] for name in names}
        found["valid"] = _spread([f["best"] for f in further.values()])
        found["test"] = {name: _spread(column) for name, column in columns.items()}
    return found


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else None, "count": len(values)}


def _importance(study: "Study") -> dict[str, float]:
    """How far a key's values among the best tenth of the trials differ from those of all, as shares; {} where nobody knows.

    PED-ANOVA, Watanabe et al. 2023, https://arxiv.org/abs/2304.10255, as Optuna computes it. Of pruned trials nothing is used.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(best_first(study.get_trials(deepcopy=False))) < 3:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _row(trial: "FrozenTrial", plan: "Plan") -> dict[str, Any]:
    attrs = trial.user_attrs
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "waiting")
    return {
        "trial": number_of(trial), "state": state, "valid": trial.values[0] if state == "complete" else None,
        "parameters": plan.space.values(trial.params) if trial.params else {}, "run_id": attrs.get("run_id"),
        "curve": {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())},
        **{name: attrs.get(name) for name in ("epochs", "seconds", "reason", "attempts")},
    }  # fmt: skip


def write(found: dict[str, Any], folder: Path, plan: "Plan") -> None:
    """The result as sweep.json and .png, and best.yaml, the config with the best settings."""
    from pipelines.sweeping.plots import figure

    (folder / RESULT_FILE).write_text(json.dumps(found, indent=1, allow_nan=False, default=str) + "\n")
    figure(found).savefig(folder / PLOT_FILE)
    tree: dict[str, Any] = {}
    for each in [*plan.overrides, *found["best"]["set"]]:
        key, _, text = each.partition("=")
        _put(tree, key.split("."), yaml.safe_load(text))
    base = os.path.relpath(plan.path.resolve(), folder.resolve())
    text = f"# Trial {found['best']['trial']} of the sweep {plan.name}: {found['metric']} {found['best']['valid']:.4f}\n"
    text += yaml.safe_dump({"extends": base} | tree, sort_keys=False)
    (folder / BEST_FILE).write_text(text)
    assert load(folder / BEST_FILE) == plan.load(*found["best"]["set"]), "best.yaml says something else than the best trial"


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        here = tree.get(key)
        tree[key] = here if isinstance(here, dict) else {}
        tree = tree[key]
    tree[keys[-1]] = value


def log_result(run: track.Run, found: dict[str, Any], folder: Path) -> None:
    run.metrics({f"test/{name}": value for name, value in found["test"].items()})
    run.metrics({f"trials/{name}": count for name, count in found["counts"].items()} | {"cost/train_s": found["seconds"]})
    for name, each in found["seeds"].get("test", {}).items():
        run.metric(f"seeds/test/{name}", each["mean"])
    run.tag(track.PROTOCOL, found["protocol"])
    run.tag("best", ", ".join(found["best"]["set"])[:4000])
    for name in (RESULT_FILE, BEST_FILE, PLOT_FILE):
        run.artefact(folder / name)


def table(found: dict[str, Any]) -> Table:
    """The best trials with their settings, and the importance of each key below them."""
    stage, keys = found["stage"], list(found["space"])
    shown_ = Table(title=f"{found['sweep']}: {found['metric']}", title_justify="left")
    for name in ("trial", "validation", "epochs", *(key.removeprefix(stage + ".") for key in keys)):
        shown_.add_column(escape(name), justify="right")
    own = found["config_itself"]
    ranked = sorted((each for each in found["trials"] if each["state"] == "complete"), key=lambda each: -each["valid"])
    for each in ranked[:SHOWN]:
        mark = " (the config)" if own is not None and own["trial"] == each["trial"] else ""
        cells = [escape(shown(each["parameters"][key])) for key in keys]
        shown_.add_row(f"{each['trial']}{mark}", f"{each['valid']:.4f}", str(each["epochs"]), *cells)
    if found["importance"]:
        shares = [f"{found['importance'][key]:.0%}" if key in found["importance"] else "" for key in keys]
        shown_.add_section()
        shown_.add_row("importance", "", "", *shares)
    return shown_


def sentences(found: dict[str, Any]) -> list[str]:
    """What the table does not say."""
    best, own, metric = found["best"], found["config_itself"], found["metric"]
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items())
    lines = [f"{counts}; {found['seconds']:.0f} s of training"]
    gain = "" if own is None else f", {best['valid'] - own['valid']:+.4f} to the config as it is"
    lines.append(f"best: trial {best['trial']}, {metric} {best['valid']:.4f}{gain}")
    names = _main(found)
    lines.append("on the test split: " + ", ".join(f"{name} {found['test'][name]:.4f}" for name in names))
    if found["seeds"]["each"]:
        spread = found["seeds"]["test"]
        means = (
            f"{name} {spread[name]['mean']:.4f}" + ("" if spread[name]["sd"] is None else f" (sd {spread[name]['sd']:.4f})")
            for name in names
        )
        valid = found["seeds"]["valid"]["mean"]
        lines.append(
            f"with {_count(len(found['seeds']['each']), 'further seed')}: validation {valid:.4f}; test " + ", ".join(means)
        )
    return [*lines, f"caution: {found['caution']}"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _main(found: dict[str, Any]) -> list[str]:
    """The few of the test metrics that are shown."""
    name = found["metric"].removeprefix("valid/")
    if name in found["test"]:
        return [name]
    kind = "AUC" if found["stage"] == "ranker" else "NDCG"
    return [each for each in found["test"] if each.startswith(kind)] or list(found["test"])[:2]
