"""What an ablation found: means over seeds, differences to the base with intervals over users, slices, and the cost in time.

Shapes: U = users, N = rows, S = seeds, R = draws of the users, M = columns.
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.ablation.ablate import EXPERIMENT, Runs
from pipelines.ablation.run import Trained
from pipelines.ablation.values import ALL, ITEM_SLICE, LABEL, SCORE, SLICE, USER_SLICE
from pipelines.ablation.variants import BASE, Plan
from recsys.config import RunConfig
from recsys.metrics import paired, resample
from recsys.metrics.classification import auc, gauc
from recsys.metrics.direction import direction
from recsys.metrics.probability import log_loss
from recsys.metrics.significance import percentile_interval
from recsys.metrics.slices import ITEM_SLICES, RULES, USER_SLICES
from recsys.protocol import Protocol

SLICES = (*ITEM_SLICES, *USER_SLICES)
DRAW_SEED = 0  # of the users drawn anew, the same for all variants
USER_DRAWS, ROW_DRAWS = 2000, 200  # an AUC costs a pass over all rows for every draw
FEWEST_USERS = 30  # the interval of a handful of users is too narrow

# Slice, metric, users, variant -> value_S and, with the users drawn anew, gap_R to the base.
Measured = tuple[str, str, int, dict[str, tuple[np.ndarray, np.ndarray]]]


def result(plan: Plan, runs: Runs, seeds: Sequence[int], config: RunConfig, data: str) -> dict[str, Any]:
    """All that was found, as JSON. A metric that does not exist (AUC of one class) is left out."""
    of_stage = _of_ranker(runs.trained, config) if plan.stage == "ranker" else _of_lists(runs.trained, config)
    variants: dict[str, Any] = {name: _facts(name, runs.trained) for name in runs.trained}
    for slice_, metric, users, values in of_stage:
        base_S, _ = values[BASE]
        for name, (value_S, gap_R) in values.items():
            entry: dict[str, Any] = {"users": users, "mean": float(value_S.mean()), "seeds": value_S.tolist()}
            if name != BASE:
                entry["difference"] = difference(value_S - base_S, gap_R, users)
            variants[name]["slices"].setdefault(slice_, {})[metric] = entry
    for name, each in variants.items():
        each["settings"] = _changed_keys(config, plan.variants[name])
        each |= _beginning(runs.trained[name], list(variants[BASE]["slices"][ALL]))
    return {
        "config": config.name, "stage": plan.stage, "title": plan.title, "seeds": list(seeds), "data": data,
        "protocol": Protocol.of(config).line, "metrics": list(variants[BASE]["slices"][ALL]),
        "rules": RULES, "fewest_users": FEWEST_USERS, "variants": variants, "refused": plan.left_out | runs.refused,
    }  # fmt: skip


def difference(gap_S: np.ndarray, gap_R: np.ndarray, users: int) -> dict[str, Any]:
    """Mean over the seeds, its 95 % interval over users drawn anew, and how many seeds have its sign. It is `shown` where the
    interval leaves out 0 and there are users enough to trust it. The interval says nothing of other seeds: `agree` does."""
    mean = float(gap_S.mean())
    gap_R = gap_R[~np.isnan(gap_R)]
    low, high = percentile_interval(gap_R, 0.95) if len(gap_R) else (mean, mean)
    shown = users >= FEWEST_USERS and len(gap_R) > 0 and (low > 0 or high < 0)
    return {"mean": mean, "low": low, "high": high, "shown": shown, "agree": int((np.sign(gap_S) == np.sign(mean)).sum())}


def _of_lists(trained: dict[str, list[Trained]], config: RunConfig) -> Iterator[Measured]:
    k = config.evaluation.ks[0]
    names = [metric for metric in (f"NDCG@{k}", f"HR@{k}") if metric in next(iter(trained.values()))[0].values.columns]
    for slice_ in (ALL, *SLICES):
        tables = {
            name: [each.values.filter(pl.col(SLICE) == slice_).sort("user") for each in runs] for name, runs in trained.items()
        }
        users = len(tables[BASE][0])
        if not users:
            continue
        columns = [(name, metric) for name in tables for metric in names]
        value_SUM = np.stack([
            np.stack([tables[name][seed][metric].to_numpy() for name, metric in columns], axis=1)
            for seed in range(len(tables[BASE]))
        ])  # fmt: skip
        base_columns = [columns.index((BASE, metric)) for _, metric in columns]
        gap_UM = (value_SUM - value_SUM[:, :, base_columns]).mean(0)  # before users are drawn, so that equal models differ by 0
        drawn_RM = resample.drawn_user_means(gap_UM, USER_DRAWS, np.random.default_rng(DRAW_SEED))
        value_SM = value_SUM.mean(1)
        for metric in names:
            place = {name: columns.index((name, metric)) for name in tables}
            yield slice_, metric, users, {name: (value_SM[:, at], drawn_RM[:, at]) for name, at in place.items()}


def _of_ranker(trained: dict[str, list[Trained]], config: RunConfig) -> Iterator[Measured]:
    rows = trained[BASE][0].values
    item_X, user_X = rows[ITEM_SLICE].to_numpy(), rows[USER_SLICE].to_numpy()
    chosen = {ALL: np.ones(len(rows), bool)}
    chosen |= {name: item_X == place for place, name in enumerate(ITEM_SLICES)}
    chosen |= {name: user_X == place for place, name in enumerate(USER_SLICES)}
    for slice_, chosen_X in chosen.items():
        for task in config.tasks:
            label_X = rows[f"{LABEL}{task}"].to_numpy()
            kept_X = chosen_X & ~np.isnan(label_X)
            if not kept_X.any():
                continue
            label_N, user_N = label_X[kept_X], np.unique(rows["user"].to_numpy()[kept_X], return_inverse=True)[1]
            rows_U, positives_U = np.bincount(user_N), np.bincount(user_N, weights=label_N == 1)
            both = int(((positives_U > 0) & (positives_U < rows_U)).sum())
            times_RU = resample.draw_users(len(rows_U), ROW_DRAWS, np.random.default_rng(DRAW_SEED))
            names = ("RMSE",) if task in config.regression else ("AUC", "GAUC", "LogLoss") if slice_ == ALL else ("AUC",)
            for metric in names:
                found = {
                    name: [
                        _row_metric(metric, each.values[f"{SCORE}{task}"].to_numpy()[kept_X], label_N, user_N, times_RU)
                        for each in runs
                    ]
                    for name, runs in trained.items()
                }
                value_S = {name: np.array([value for value, _ in each]) for name, each in found.items()}
                drawn_R = {name: np.mean([drawn_R for _, drawn_R in each], axis=0) for name, each in found.items()}
                if not any(np.isnan(each).any() for each in value_S.values()):
                    users = both if metric in ("AUC", "GAUC") else len(rows_U)
                    yield (
                        slice_,
                        f"{metric}/{task}",
                        users,
                        {name: (value_S[name], drawn_R[name] - drawn_R[BASE]) for name in found},
                    )


def _row_metric(
    metric: str, score_N: np.ndarray, label_N: np.ndarray, user_N: np.ndarray, times_RU: np.ndarray
) -> tuple[float, np.ndarray]:
    """The metric as measured, and with the users drawn anew."""
    score_N, label_N = score_N.astype(np.float64), label_N.astype(np.float64)
    match metric:
        case "AUC":
            return auc(score_N, label_N), paired.drawn_auc(score_N, label_N, user_N, times_RU)
        case "GAUC":
            return gauc(score_N, label_N, user_N), paired.drawn_gauc(score_N, label_N, user_N, times_RU)
        case "LogLoss":
            eps = np.finfo(np.float64).eps
            right_N = np.clip(np.where(label_N == 1, score_N, 1 - score_N), eps, 1)
            return log_loss(score_N, label_N), paired.drawn_mean(-np.log(right_N), user_N, times_RU)
        case "RMSE":
            squared_N = (score_N - label_N) ** 2
            return math.sqrt(squared_N.mean()), np.sqrt(paired.drawn_mean(squared_N, user_N, times_RU))
    raise AssertionError(metric)


def _facts(name: str, trained: dict[str, list[Trained]]) -> dict[str, Any]:
    """Step time as the median over the seeds of the ratio to the base with the same seed; sizes of the vectors' space."""
    facts, base = [each.facts for each in trained[name]], [each.facts for each in trained[BASE]]
    ratios = [a["step_ms"] / b["step_ms"] for a, b in zip(facts, base, strict=True) if a["step_ms"] and b["step_ms"]]
    health = [name for name in ("rankme", "alignment", "uniformity_users", "uniformity_items") if name in facts[0]["test"]]
    return {
        "step_ms": [each["step_ms"] for each in facts], "step_ratio": statistics.median(ratios) if ratios else None,
        "seconds": [each["seconds"] for each in facts], "epochs": [each["epochs"] for each in facts],
        "health": {each: statistics.mean(run["test"][each] for run in facts) for each in health}, "slices": {},
    }  # fmt: skip


def _beginning(trained: list[Trained], metrics: list[str]) -> dict[str, Any]:
    """Of models that go on from another one: what that reaches, as the mean over the seeds, and which of the two was kept."""
    facts = [each.facts for each in trained]
    found: dict[str, Any] = {}
    if "start" in facts[0]:
        means = {metric: statistics.mean(each["start"]["test"][metric] for each in facts) for metric in metrics}
        found["begins_from"] = {"part": facts[0]["start"]["part"], **means}
    if "guard" in facts[0]:
        found["guard"] = [each["guard"] for each in facts]
    return found


def _changed_keys(base: RunConfig, variant: RunConfig) -> dict[str, Any]:
    """Dotted key -> value of the sections in which a variant differs from the base."""
    before, after = base.model_dump(mode="json"), variant.model_dump(mode="json")
    found: dict[str, Any] = {}
    for key, value in after.items():
        old = before[key] or {}
        if isinstance(value, dict) and value != old:
            found |= {f"{key}.{name}": each for name, each in value.items() if each != old.get(name)}
        elif value != before[key]:
            found[key] = value
    return found


def write(found: dict[str, Any], folder: Path, *, config: RunConfig, uri: str | None) -> Path:
    """The result as ablation.json, .md and .png, also as a run beside those of the models."""
    from pipelines.ablation.table import markdown
    from recsys import plots, track

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ablation.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    (folder / "ablation.md").write_text(markdown(found))
    drawn = {metric: _drawn(found, metric) for metric in found["metrics"]}
    plots.differences(drawn, f"{found['title']}: difference to the base").savefig(folder / "ablation.png")
    tags = {"config": config.name, "ablation": found["title"], "stage": found["stage"], track.PROTOCOL: found["protocol"]}
    with track.start_run(EXPERIMENT, f"{config.name} {found['title']}", data=found["data"], uri=uri, tags=tags) as run:
        for name in ("ablation.json", "ablation.md", "ablation.png"):
            run.artefact(folder / name)
    return folder


def _drawn(found: dict[str, Any], metric: str) -> dict[str, tuple[float, float, float, int]]:
    """By variant: difference, low, high, and whether it is shown as better (1), worse (-1) or not at all (0)."""
    drawn = {}
    for name, each in found["variants"].items():
        gap = each["slices"][ALL].get(metric, {}).get("difference")
        if gap is not None:
            drawn[name] = (gap["mean"], gap["low"], gap["high"], verdict(metric, gap))
    return drawn


def verdict(metric: str, gap: dict[str, Any]) -> int:
    """1 shown to be better than the base, -1 worse, 0 nothing shown."""
    return 0 if not gap["shown"] else int(math.copysign(1, gap["mean"])) * (direction(metric) or 1)
