"""A checkpoint on the test split, with the values that comparisons over users and slices need.

Shapes: U = users judged, K = list length, I = rows of the item table, X = examples, S = users of one slice.
"""

import functools

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file
from torch import nn

from pipelines import models
from pipelines.candidates import candidate_graph
from pipelines.evaluate import judged_examples
from pipelines.workspace import Workspace
from recsys import evaluate
from recsys.columns import ITEM, TEST
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.metrics.slices import history_slices, popularity_slices
from recsys.models.retriever import RetrievalGraph
from recsys.train.loop import MODEL_FILE

ALL, SLICE = "all", "slice"
ITEM_SLICE, USER_SLICE, SCORE, LABEL = "item_slice", "user_slice", "score_", "label_"


def judge(
    config: RunConfig, data: Dataset, workspace: Workspace, part: str, device: torch.device
) -> tuple[pl.DataFrame, dict[str, float]]:  # fmt: skip
    """The values of every user, or of every example of a ranker, and the metrics over all of them."""
    judged = judge_ranker if part == "ranker" else functools.partial(judge_candidates, part=part)
    return judged(config, data, workspace, device=device)


def judge_candidates(
    config: RunConfig, data: Dataset, workspace: Workspace, *, part: str, device: torch.device
) -> tuple[pl.DataFrame, dict[str, float]]:  # fmt: skip
    """Every user's metrics: over all targets, over those of each popularity, and as one of the cold or the warm users."""
    rules = config.evaluation
    judged = evaluate.judged_users(data, TEST, filter_seen=rules.filter_seen, request_time=rules.request_time)
    if not len(judged.user_U):
        raise InputError(f"{data.folder}: no user has a test event: change data.split")
    graph = candidate_graph(config, data, workspace, part)
    assert isinstance(graph, nn.Module)
    graph.to(device)
    k = min(max(rules.ks), data.num_items)
    ks = [each for each in rules.ks if each <= k]
    item_UK = evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=rules.filter_seen)
    means, per_user = evaluate.retrieval_metrics(item_UK, judged, ks, data.num_items)
    whole = pl.DataFrame({"user": judged.user_U, **per_user})
    tables = [whole.with_columns(pl.lit(ALL).alias(SLICE))]
    for name, row_S, values in evaluate.in_slices(item_UK, judged, per_user, ks, evaluate.built_in_slices(data, judged)):
        tables.append(pl.DataFrame({"user": judged.user_U[row_S], **values}).with_columns(pl.lit(name).alias(SLICE)))
    if isinstance(graph, RetrievalGraph):  # another form has no vectors of whole items
        means |= evaluate.embedding_health(graph, judged, max_history=config.max_history)
    return pl.concat(tables), means


def judge_ranker(
    config: RunConfig, data: Dataset, workspace: Workspace, *, device: torch.device
) -> tuple[pl.DataFrame, dict[str, float]]:  # fmt: skip
    """Every example's answers and labels, with the slice of its item and of its user."""
    tasks, loader = list(config.tasks), judged_examples(config, data)
    graph = models.ranking_graph(config, data, load_file(workspace.checkpoint("ranker") / MODEL_FILE)).to(device)
    found = evaluate.predict(graph, loader)
    first_U, _ = data.events(TEST)
    user_U, row_X = np.unique(found.user_X, return_inverse=True)
    item_slice_X = popularity_slices(data.train_count_I)[data.examples[ITEM][loader.row_X]]
    values = pl.DataFrame(
        {
            "user": found.user_X, ITEM_SLICE: item_slice_X, USER_SLICE: history_slices((first_U - data.start_U)[user_U])[row_X],
            **{f"{SCORE}{task}": found.probability_XT[:, column] for column, task in enumerate(tasks)},
            **{f"{LABEL}{task}": found.label_XT[:, column] for column, task in enumerate(tasks)},
        }
    )  # fmt: skip
    metrics = evaluate.ranking_metrics(
        found, tasks, ece_bins=config.evaluation.ece_bins, seed=config.seed, intervals=False, numbers=config.regression
    )
    return values, metrics
