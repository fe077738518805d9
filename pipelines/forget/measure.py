"""What forgetting is judged by: the membership attack on the forgotten, and the quality that is left for the others.

Shapes: F = users to forget, O = users who were never trained on.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pipelines import models
from pipelines.evaluate import judged_examples
from pipelines.forget.unlearn import scores
from recsys import evaluate
from recsys.columns import TEST, TRAIN, VALID
from recsys.config import RunConfig
from recsys.continual.membership import Attack, attack
from recsys.dataset import Dataset
from recsys.errors import InputError

LEAST = 20  # users in a group, so that an AUC says something of it


def never_trained(data: Dataset) -> np.ndarray:
    """Users all of whose events came after training."""
    return np.flatnonzero(data.cold_users & (data.length_U > 0))


def membership(
    config: RunConfig, data: Dataset, part: str, state: Mapping[str, Tensor], forget_F: np.ndarray, other_O: np.ndarray, *,
    known: bool,
) -> Attack | None:  # fmt: skip
    """The attack on a checkpoint with the ids of the dataset that still has all of them; None where too few were never trained
    on, or no one to forget was. `known`: whether the model still has the users' own rows."""
    _, theirs = scores(config, data, part, state, forget_F, (TRAIN,), known=known)
    _, others = scores(config, data, part, state, other_O, (VALID, TEST), known=False)
    return attack(theirs, others) if len(theirs) and len(others) >= LEAST else None


def quality(config: RunConfig, data: Dataset, part: str, state: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """The name and value, on the test split, of the retriever's NDCG or of the ranker's mean AUC; None if nobody is judged."""
    if part == "ranker":
        return _ranking(config, data, state)
    rules = config.evaluation
    judged = evaluate.judged_users(data, TEST, filter_seen=rules.filter_seen, request_time=rules.request_time)
    if not len(judged.user_U):
        return None
    k, graph = rules.ks[0], models.retrieval_graph(config, data, dict(state))
    item_UK = evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=rules.filter_seen)
    means, _ = evaluate.retrieval_metrics(item_UK, judged, [k], data.num_items)
    return f"NDCG@{k}", means[f"NDCG@{k}"]


def _ranking(config: RunConfig, data: Dataset, state: Mapping[str, Tensor]) -> tuple[str, float] | None:
    try:
        loader = judged_examples(config, data)
    except InputError:
        return None
    tasks = list(config.tasks)
    metrics = evaluate.ranking_metrics(
        evaluate.predict(models.ranking_graph(config, data, dict(state)), loader), tasks, ece_bins=config.evaluation.ece_bins,
        seed=config.seed, intervals=False, numbers=config.regression,
    )  # fmt: skip
    known = [value for task in tasks if (value := metrics.get(f"AUC/{task}", np.nan)) == value]
    return ("AUC/mean", float(np.mean(known))) if known else None
