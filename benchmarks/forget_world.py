"""The world of the benchmark of forgetting, and what is measured in it: a model that knows its users by heart.

Users are drawn at random to be forgotten or never to be trained on, so that only the training tells the groups apart.
Shapes: U = users, F = forgotten, C = never in training.
"""

import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pipelines import models
from pipelines.forget import unlearn
from pipelines.forget.without import Without
from pipelines.train import train_ranker, train_retriever
from pipelines.workspace import config_path
from recsys import evaluate
from recsys.columns import TEST, TRAIN
from recsys.config import RunConfig, load
from recsys.continual.dampening import Dampening
from recsys.continual.membership import attack, matched
from recsys.data.build import build
from recsys.dataset import Dataset
from recsys.simulate import Simulation, simulate
from recsys.train.loop import MODEL_FILE

Model = tuple[dict[str, torch.Tensor], float]
Method = Callable[..., tuple[dict[str, torch.Tensor], dict[str, Any]]]
TRAINERS = {"retriever": train_retriever, "ranker": train_ranker}
SPLIT = "data.split={kind: time, valid_share: 0.05, test_share: 0.3}"  # so that most users are judged
KNOWS_BY_HEART = {
    "retriever": (
        "retriever.encoder={kind: sasrec, dim: 64, blocks: 1, heads: 1, dropout: 0.0, feed_forward: 2}",
        "retriever.fit={epochs: 40, batch_size: 128, learning_rate: 4.0e-3, embedding_learning_rate: 0.05, keep: last, "
        "evaluate_every: 40, patience: 99}",
    ),
    "ranker": (
        "ranker.fit={epochs: 20, batch_size: 512, learning_rate: 3.0e-3, embedding_learning_rate: 0.1, keep: last, "
        "evaluate_every: 20, patience: 99}",
    ),
}


class Quiet:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def world(folder: Path, *, users: int, items: int, events: int, seed: int, parts: tuple[str, ...]) -> tuple[RunConfig, Dataset]:
    """A simulated log as a dataset, and a config whose models overfit it."""
    simulate(Simulation(users=users, items=items, events=events, days=10, seed=seed), folder / "raw")
    config = load(config_path("demo"), f"seed={seed}", SPLIT, *(each for part in parts for each in KNOWS_BY_HEART[part]))
    build(config.data, folder / "raw", folder / "dataset")
    return config, Dataset(folder / "dataset")


def groups(
    data: Dataset, *, forgotten: int, controls: int, unseen: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users to forget, as active ones for the attack to compare them with, and others for unlearning to aim at. The latter two
    are never trained on, and unlearning never sees those of the attack."""
    rng = np.random.default_rng([seed, 7])
    length_U = data.events(TRAIN)[1]
    shuffled_U = rng.permutation(np.flatnonzero(length_U >= 2))
    forget_F, unseen_N, pool = np.split(shuffled_U[: forgotten + unseen + 2 * controls], [forgotten, forgotten + unseen])
    chosen = matched(length_U[forget_F], length_U[pool], each=-(-controls // forgotten), rng=rng)
    return np.sort(forget_F), np.sort(pool[chosen]), np.sort(unseen_N)


def trained(config: RunConfig, data: Dataset, part: str, device: torch.device) -> tuple[dict[str, torch.Tensor], float]:
    """The parameters, and the seconds they took."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        TRAINERS[part](config, data, Path(folder) / part, device=device, progress=Quiet())
        return load_file(Path(folder) / part / MODEL_FILE), time.perf_counter() - began


def quality(
    config: RunConfig, data: Dataset, part: str, state: dict[str, torch.Tensor], hidden_H: np.ndarray
) -> np.ndarray:  # fmt: skip
    """Of the users that are not hidden, on the test split: each one's NDCG@10 of the retriever, or the ranker's mean AUC."""
    rest = Without(data, hidden_H)
    if part == "ranker":
        from pipelines.evaluate import judged_examples

        found = evaluate.predict(models.ranking_graph(config, rest, state), judged_examples(config, rest))
        tasks = list(config.tasks)
        metrics = evaluate.ranking_metrics(found, tasks, ece_bins=10, seed=0, intervals=False, numbers=config.regression)
        return np.array([np.nanmean([metrics[f"AUC/{task}"] for task in tasks])])
    rules = config.evaluation
    judged = evaluate.judged_users(rest, TEST, filter_seen=rules.filter_seen, request_time=rules.request_time)
    graph = models.retrieval_graph(config, rest, state)
    item_UK = evaluate.recommend(graph, judged, k=10, max_history=config.max_history, filter_seen=rules.filter_seen)
    return evaluate.retrieval_metrics(item_UK, judged, [10], rest.num_items)[1]["NDCG@10"]


@dataclass(frozen=True)
class Case:
    """A seed's world, its groups, and the models before and after exact retraining, each with its seconds."""

    config: RunConfig
    data: Dataset
    part: str
    forget_F: np.ndarray
    control_C: np.ndarray
    unseen_N: np.ndarray
    before: Model
    retrain: Model

    @property
    def hidden_H(self) -> np.ndarray:
        return np.concatenate([self.forget_F, self.control_C, self.unseen_N])


def case(
    config: RunConfig, data: Dataset, part: str, groups: tuple[np.ndarray, np.ndarray, np.ndarray], device: torch.device
) -> Case:
    """Train both models."""
    forget_F, control_C, unseen_N = groups
    never = np.concatenate([control_C, unseen_N])
    before = trained(config, Without(data, never), part, device)
    retrain = trained(config, Without(data, np.concatenate([forget_F, never])), part, device)
    return Case(config, data, part, forget_F, control_C, unseen_N, before, retrain)


def measured(each: Case, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Method -> AUC of the attack, quality for the others by user, seconds. `before` is the model that knows the forgotten."""
    config, data, part, forget_F = each.config, each.data, each.part, each.forget_F
    trained_on = Without(data, np.concatenate([each.control_C, each.unseen_N]))
    states = {"before": each.before, "retrain": each.retrain}
    for name, method in methods(data, each.control_C, each.unseen_N).items():
        if name in names:
            began = time.perf_counter()
            states[name] = method(config, trained_on, part, each.before[0], forget_F)[0], time.perf_counter() - began
    found = {}
    for name, (state, seconds) in states.items():
        _, theirs = unlearn.scores(config, data, part, state, forget_F, (TRAIN,), known=name == "before")
        _, others = unlearn.scores(config, data, part, state, each.control_C, (TRAIN,), known=False)
        told = attack(theirs, others)
        quality_U = quality(config, data, part, state, each.hidden_H)
        found[name] = {"auc": told.auc, "low": told.low, "high": told.high, "quality_U": quality_U, "seconds": seconds}
    return found


def methods(data: Dataset, control_C: np.ndarray, unseen_N: np.ndarray) -> dict[str, Method]:
    """Name -> what makes a checkpoint that has forgotten."""
    return {
        "rows alone": lambda config, trained_on, part, state, forget_F: (unlearn.delete_rows(state, forget_F), {}),
        "dampen": unlearn.dampen,
        "dampen, alpha 2": lambda config, trained_on, part, state, forget_F: unlearn.dampen(
            config, trained_on, part, state, forget_F, Dampening(alpha=2)
        ),
        "unlearn": lambda config, trained_on, part, state, forget_F: unlearn.unlearn(
            config, Without(data, control_C), part, state, forget_F, unseen_N
        ),
    }
