"""Predictions of the ranker for labelled examples, and their metrics.

Shapes: X = examples, T = tasks, B = examples of one batch, N = rows with a label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from recsys.batch import Batch, Ids
from recsys.columns import USER
from recsys.loader import ExampleLoader
from recsys.metrics import classification
from recsys.metrics.probability import (
    expected_calibration_error,
    log_loss,
    normalised_entropy,
    reliability,
    user_log_losses,
)
from recsys.metrics.runs_of_scores import user_aucs
from recsys.models.ranker import RankingGraph
from recsys.prefetch import prefetch


class Rows(NamedTuple):
    """The examples that have a label of one task."""

    score_N: np.ndarray
    label_N: np.ndarray
    user_N: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Probabilities, or predicted numbers, and labels (NaN where a label does not exist) of every example of a split."""

    user_X: np.ndarray
    probability_XT: np.ndarray
    label_XT: np.ndarray

    def of(self, task: str, tasks: Sequence[str]) -> Rows:
        """The rows of one of `tasks`, which are the columns."""
        column = tasks.index(task)
        exists_X = ~np.isnan(self.label_XT[:, column])
        return Rows(self.probability_XT[exists_X, column], self.label_XT[exists_X, column], self.user_X[exists_X])


@torch.no_grad()
def predict(graph: RankingGraph, loader: ExampleLoader) -> Predictions:
    """The serving form's answers for the loader's examples, on the graph's device."""
    device, probability, label = graph.item_id.device, [], []
    for batch in prefetch(loader.in_order()):
        label.append(batch.label_BT.numpy())
        batch = batch.to(device)
        found = answers(graph, batch, loader.dataset.context)
        probability.append(found.cpu().numpy())
    return Predictions(loader.dataset.examples[USER][loader.row_X], np.concatenate(probability), np.concatenate(label))


def answers(graph: RankingGraph, batch: Batch, context: Sequence[str]) -> torch.Tensor:
    """answer_BT of the serving form for the examples of a batch; `context`: the names of the context features, in order."""
    ids, history = batch.ids, batch.ids["history"]
    context_BF = torch.stack([ids[name].value_N for name in context], dim=1) if context else None
    behaviour = Ids(batch.behaviour_N, history.length_B).padded() if graph.reads_behaviours else None
    dense = batch.dense_BF[:, None] if graph.design.dense else None
    item_BC = ids["item"].value_N[:, None]
    found: torch.Tensor = graph(ids["user"].value_N, history.padded(), history.length_B, item_BC, context_BF, behaviour, dense)
    return found[:, 0]


def ranking_metrics(
    predictions: Predictions, tasks: Sequence[str], *, ece_bins: int, seed: int, intervals: bool, numbers: Sequence[str] = ()
) -> dict[str, float]:
    """AUC, GAUC, PR-AUC, LogLoss, NE and ECE of each task; with `intervals` also a 95 % interval of AUC over resampled users.

    Tasks of `numbers`, whose label is one, have the root mean squared error (RMSE) and the mean absolute one (MAE) instead, in
    units of the label. NaN where a metric does not exist: AUC without both classes, everything without labels.
    """
    metrics: dict[str, float] = {}
    for task in tasks:
        rows = predictions.of(task, tasks)
        found = _errors(rows) if task in numbers else _of_labels(rows, ece_bins)
        if intervals and task not in numbers:
            found["AUC_low"], found["AUC_high"] = classification.auc_interval(*rows, rng=np.random.default_rng(seed))
        metrics |= {f"{name}/{task}": value for name, value in found.items()}
    return metrics


def reliability_curves(
    predictions: Predictions, tasks: Sequence[str], *, bins: int, numbers: Sequence[str] = ()
) -> dict[str, list[dict[str, float]]]:
    """The bins of the expected calibration error of each task that has labels in {0, 1}."""
    found = {task: predictions.of(task, tasks) for task in tasks if task not in numbers}
    return {task: reliability(rows.score_N, rows.label_N, bins) for task, rows in found.items() if len(rows.label_N)}


def per_user_ranking(predictions: Predictions, tasks: Sequence[str], *, numbers: Sequence[str] = ()) -> pl.DataFrame:
    """A row for each user and task with labels in {0, 1}: `user`, `task`, `rows`, `AUC` (null with one class), `LogLoss`."""
    schema = {"user": pl.Int64, "task": pl.String, "rows": pl.Int64, "AUC": pl.Float64, "LogLoss": pl.Float64}
    tables = [pl.DataFrame(schema=schema)]
    for task in tasks:
        rows = predictions.of(task, tasks)
        if task in numbers or not len(rows.label_N):
            continue
        user_U, place_N = np.unique(rows.user_N, return_inverse=True)
        auc_U, rows_U = user_aucs(rows.score_N, rows.label_N, place_N, len(user_U))
        loss_U = user_log_losses(rows.score_N, rows.label_N, place_N, len(user_U))
        columns = {"user": user_U, "task": [task] * len(user_U), "rows": rows_U, "AUC": auc_U, "LogLoss": loss_U}
        tables.append(pl.DataFrame(columns, schema=schema).with_columns(pl.col("AUC").fill_nan(None)))
    return pl.concat(tables)


def _of_labels(rows: Rows, ece_bins: int) -> dict[str, float]:
    score_N, label_N, user_N = rows
    if not len(label_N):
        return dict.fromkeys(("AUC", "GAUC", "PR-AUC", "LogLoss", "NE", "ECE"), float("nan"))
    return {
        "AUC": classification.auc(score_N, label_N),
        "GAUC": classification.gauc(score_N, label_N, user_N),
        "PR-AUC": classification.pr_auc(score_N, label_N),
        "LogLoss": log_loss(score_N, label_N),
        "NE": normalised_entropy(score_N, label_N),
        "ECE": expected_calibration_error(score_N, label_N, bins=ece_bins),
    }


def _errors(rows: Rows) -> dict[str, float]:
    if not len(rows.label_N):
        return {"RMSE": float("nan"), "MAE": float("nan")}
    error_N = rows.score_N.astype(np.float64) - rows.label_N
    return {"RMSE": float(np.sqrt(np.mean(error_N**2))), "MAE": float(np.mean(np.abs(error_N)))}
