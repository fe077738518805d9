"""What a trained model would earn as a policy, by the log's own chances. Shapes: N = logged rows, R = requests, I = items."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.candidates import candidate_graph
from pipelines.requests import ItemProbabilities, Requests, probabilities, requests, softmax_policy
from pipelines.workspace import Workspace, check_lineage
from recsys.columns import ITEM, PROPENSITY, SLOT, TEST, USER, label
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.jagged import Jagged
from recsys.metrics.off_policy import IPS, SNIPS, Direct, DoublyRobust, Estimator, Logged, Switch, support
from recsys.metrics.off_policy.estimator import Terms
from recsys.metrics.off_policy.intervals import normal
from recsys.metrics.off_policy.outcome import Rates, cross_fitted

PARTS = ("retriever", "generator", "policy")  # whose serving form is a policy over the catalogue
FILE = "off_policy.json"
ESTIMATORS: dict[str, Estimator] = {
    "ips": IPS(),
    "ips, clipped": IPS(clip=10.0),
    "snips": SNIPS(),
    "direct": Direct(),
    "DR": DoublyRobust(),
    "self-normalised DR": DoublyRobust(self_normalised=True),
    "switch": Switch(above=10.0),
}


@dataclass(frozen=True)
class Rows:
    """Logged rows of the test split whose label is known."""

    reward_N: np.ndarray
    propensity_N: np.ndarray
    item_N: np.ndarray
    user_N: np.ndarray  # numbered from 0
    place_N: np.ndarray  # 0 where the log has no places
    asked: Requests


def off_policy_run(
    config: RunConfig, data: Dataset, workspace: Workspace, *, part: str, task: str | None, temperatures: list[float]
) -> dict[str, Any]:  # fmt: skip
    """Values of the part's softmax policy at each temperature and of the logging policy. Raises InputError."""
    if part not in PARTS:
        raise InputError(f"--part {part!r} is no policy over items: choose from {list(PARTS)}")
    if bad := [t for t in temperatures if not t > 0]:
        raise InputError(f"--temperature {bad[0]:g} is not above 0: near 0 the policy shows its best item only")
    if part != "retriever" and getattr(config, part) is None:
        raise InputError(f"--part {part}: this config has no `{part}` section")
    task, rows = logged_rows(config, data, task)
    manifest = check_lineage(workspace, part, data, config)
    graph = candidate_graph(config, data, workspace, part)
    model = cross_fitted(
        rows.reward_N, rows.place_N, rows.item_N, rows.user_N, num_items=data.num_items, rng=np.random.default_rng(config.seed)
    )
    policies = {}
    for temperature in temperatures:
        log = as_logged(rows, model, softmax_policy(graph, data.num_items, temperature), config)
        policies[f"{temperature:g}"] = {"support": support(log)._asdict(), "estimates": estimates(log)}
    logging = normal(Terms(rows.reward_N, np.zeros(len(rows.reward_N)), np.ones(len(rows.reward_N))), rows.user_N)
    result = {
        "part": part, "checkpoint": manifest["fingerprint"], "task": task, "split": "test", "rows": len(rows.reward_N),
        "requests": len(rows.asked.user_R), "users": int(rows.user_N.max()) + 1, "clusters": "user",
        "seen_items": "removed" if config.evaluation.filter_seen else "kept", "places": "filled one by one",
        "logging": logging._asdict(), "policies": policies,
    }  # fmt: skip
    scratch = workspace.root / f".{FILE}.tmp"
    scratch.write_text(json.dumps(result, indent=1) + "\n")
    scratch.rename(workspace.root / FILE)
    return result


def logged_rows(config: RunConfig, data: Dataset, task: str | None) -> tuple[str, Rows]:
    """The task and its test rows, refused where the log does not say by what chance it came about."""
    if config.data.events.propensity is None or PROPENSITY not in data.examples:
        raise InputError(
            "this log has no propensities, and what another policy would have earned hangs on them: name the column with the "
            "chance of every shown item in data.events.propensity"
        )
    if task is None:
        task = next(iter(data.tasks), None)
    if task is None or task not in data.tasks:
        raise InputError(f"--task {task!r} is no task of the log: choose from {data.tasks}, or name one in data.events.labels")
    row_N = data.example_rows(TEST)
    reward_N = np.asarray(data.examples[label(task)][row_N], np.float64) if len(row_N) else np.empty(0)
    row_N, reward_N = row_N[~np.isnan(reward_N)], reward_N[~np.isnan(reward_N)]
    if not len(row_N):
        raise InputError(f"{data.folder}: no test example has a label for {task}: change data.split, or name another --task")
    propensity_N = np.asarray(data.examples[PROPENSITY][row_N], np.float64)
    if bad := np.count_nonzero(~((propensity_N > 0) & (propensity_N <= 1))):
        raise InputError(
            f"data.events.propensity is not above 0 and at most 1 for {bad:,} of {len(row_N):,} test examples: log the chance "
            "with which each item was shown, or keep rows out that were not shown by chance"
        )
    place_N = np.asarray(data.examples[SLOT][row_N], np.int64) if SLOT in data.examples else np.zeros(len(row_N), np.int64)
    user_N = np.unique(data.examples[USER][row_N], return_inverse=True)[1]
    asked = requests(data, row_N, config.evaluation.request_time)
    return task, Rows(
        reward_N, propensity_N, np.asarray(data.examples[ITEM][row_N], np.int64), user_N, place_N - place_N.min(), asked
    )  # fmt: skip


def as_logged(rows: Rows, model: Rates, policy: ItemProbabilities, config: RunConfig) -> Logged:
    """The rows as of this policy, which is asked once for each request."""
    request_N, requests_R = rows.asked.request_N, len(rows.asked.user_R)
    target_N, lift_RF = np.zeros(len(rows.item_N)), np.zeros((requests_R, len(model.lift_FI)))
    rows_of = Jagged(np.argsort(request_N, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(request_N))]))
    batches = probabilities(
        policy, rows.asked, max_history=config.max_history, filter_seen=config.evaluation.filter_seen
    )  # fmt: skip
    for row_B, prob_BI in batches:
        lift_RF[row_B], mine = model.lifts(prob_BI), rows_of.take(row_B)
        target_N[mine.item_E] = prob_BI[mine.row_E, rows.item_N[mine.item_E]]
    return Logged(
        rows.reward_N, rows.propensity_N, target_N, rows.user_N, predicted_N=model.predicted(rows.place_N, rows.item_N),
        direct_N=model.direct(rows.place_N, lift_RF, request_N),
    )  # fmt: skip


def estimates(log: Logged) -> dict[str, dict[str, Any]]:
    """Each estimator's value, and how far it is above the log's own mean reward, with intervals over users."""
    if not log.target_N.any():
        return {}
    found = {}
    for name, estimator in ESTIMATORS.items():
        terms = estimator(log)
        value, gain = normal(terms, log.cluster_N), normal(terms, log.cluster_N, minus_N=log.reward_N)
        found[name] = {**value._asdict(), "gain": gain._asdict(), "bias": estimator.bias}
    return found


def flat_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The result under MLflow names: off_policy/PART@TEMPERATURE/ESTIMATOR and so on."""
    flat = {"off_policy/logging": result["logging"]["value"]}
    for temperature, found in result["policies"].items():
        name = f"off_policy/{result['part']}@{temperature}"
        flat |= {f"{name}/{key}": found["support"][key] for key in ("ess", "max_weight", "mean_weight")}
        for estimator, entry in found["estimates"].items():
            key = f"{name}/{estimator.replace(',', '').replace(' ', '_')}"
            flat |= {key: entry["value"], f"{key}_low": entry["low"], f"{key}_high": entry["high"]}
    return flat
