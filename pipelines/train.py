"""Dataset -> checkpoints: what is trained, on what, judged by what. The mathematics lives in `recsys`."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipelines import models
from pipelines.workspace import identity
from recsys import evaluate
from recsys.balance.fixed import Fixed
from recsys.columns import TRAIN, VALID, label
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.loader import ExampleLoader, Prefetched, SequenceLoader
from recsys.sample import Mixed
from recsys.train.job import Job, Progress
from recsys.train.loop import fit
from recsys.train.objective import RankingLearner, RetrievalLearner

EVALUATION_BATCH = 8192
NEXT_ITEM = "next_item"


def train_retriever(
    config: RunConfig, data: Dataset, out: Path, *, device: torch.device, progress: Progress, **options: Any
) -> dict[str, Any]:
    """Train the next-item model and write its checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    part, rules = config.retriever, config.evaluation
    _require_rows(part.fit.batch_size, "retriever")
    if part.encoder.reads_time and not data.has_time:
        raise InputError(
            f"retriever.encoder {part.encoder.kind} reads when events happened, which this log does not say: choose sasrec"
        )
    judged = evaluate.judged_users(data, VALID, filter_seen=rules.filter_seen, request_time=rules.request_time)
    loader = SequenceLoader(
        data, config.max_history, part.fit.batch_size, config.seed, dist.get_rank(), dist.get_world_size(),
        part.fit.batch_tokens, part.validation_too,
    )  # fmt: skip
    if not len(judged.user_U) or not loader.num_batches(0):
        raise InputError(f"{data.folder}: the split leaves no training or validation events: change data.split")
    k = rules.ks[0]

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        graph = models.retrieval_graph(config, data, state).to(device)
        item_UK = evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=rules.filter_seen)
        means, _ = evaluate.retrieval_metrics(item_UK, judged, [k], data.num_items)
        return {f"valid/{name}": value for name, value in means.items()}

    train_count_I = torch.tensor(data.train_count_I, device=device)
    learner = RetrievalLearner(
        loss=part.loss, similarity=part.similarity, matryoshka=part.matryoshka,
        sampler=(part.negatives or Mixed()).build(train_count_I) if part.loss.sampled else None,
        codes=models.item_codes(config, data, device), denoise=part.denoise, weights={NEXT_ITEM: 1.0},
    )  # fmt: skip
    job = Job(
        name="retriever", build=lambda: models.retriever(config, data), learner=learner,
        balance=Fixed().build({NEXT_ITEM: 1.0}), loader=Prefetched(loader), validate=validate, main_metric=f"valid/NDCG@{k}",
    )  # fmt: skip
    return fit(
        job, part.fit, seed=config.seed, device=device, out=out, identity=identity(config, data, "retriever"),
        progress=progress, **options,
    )  # fmt: skip


def train_ranker(
    config: RunConfig, data: Dataset, out: Path, *, device: torch.device, progress: Progress, **options: Any
) -> dict[str, Any]:
    """Train the multi-task model and write its checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    part, tasks = config.ranker, config.tasks
    _require_rows(part.fit.batch_size, "ranker")
    make_loader = functools.partial(
        ExampleLoader, data, tasks=list(tasks), max_history=config.ranker_history, seed=config.seed,
        behaviours=part.sharing.reads_behaviours,
    )  # fmt: skip
    loader = make_loader(split=TRAIN, batch_size=part.fit.batch_size, rank=dist.get_rank(), world_size=dist.get_world_size())
    valid = make_loader(split=VALID, batch_size=EVALUATION_BATCH)
    if not len(valid.row_X) or not loader.num_batches(0):
        raise InputError(f"{data.folder}: the split leaves no labelled training or validation examples: change data.split")
    for task in (task for task in tasks if task not in config.regression):
        _require_two_classes(data, task, loader.row_X)

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        predictions = evaluate.predict(models.ranking_graph(config, data, state).to(device), valid)
        metrics = evaluate.ranking_metrics(
            predictions,
            list(tasks),
            ece_bins=config.evaluation.ece_bins,
            seed=config.seed,
            intervals=False,
            numbers=config.regression,
        )
        aucs = [metrics[f"AUC/{task}"] for task in tasks if task not in config.regression]
        known = [value for value in aucs if value == value]
        metrics["AUC/mean"] = sum(known) / len(known) if known else 0.5
        if not aucs:
            metrics["error/mean"] = -sum(metrics[f"RMSE/{task}"] for task in tasks) / len(tasks)
        return {f"valid/{name}": value for name, value in metrics.items()}

    learner = RankingLearner(tasks, tuple(config.regression), part.regression, part.denoise)
    job = Job(
        name="ranker", build=lambda: models.ranker(config, data), learner=learner, balance=part.balance.build(tasks),
        loader=Prefetched(loader), validate=validate,
        main_metric="valid/AUC/mean" if len(config.regression) < len(tasks) else "valid/error/mean",
    )  # fmt: skip
    return fit(
        job, part.fit, seed=config.seed, device=device, out=out, identity=identity(config, data, "ranker"),
        progress=progress, **options,
    )  # fmt: skip


def _require_rows(batch_size: int, part: str) -> None:
    processes = dist.get_world_size()
    if processes > 1 and batch_size < 2 * processes:  # the last batch may be half as large
        raise InputError(f"{part}.fit.batch_size {batch_size} is over all {processes} processes: raise it to {2 * processes}")


def _require_two_classes(data: Dataset, task: str, row_X: np.ndarray) -> None:
    if task not in data.tasks:
        raise InputError(f"{data.folder} has no task {task!r}: choose one of {data.tasks}")
    value_X = data.examples[label(task)][row_X]
    classes = np.unique(value_X[~np.isnan(value_X)])
    if len(classes) < 2:
        found = f"only the value {classes[0]:g}" if len(classes) else "no value"
        raise InputError(
            f"task {task!r} has {found} in the training split, so there is nothing to learn: "
            "take it out of the labels, or change data.split"
        )
