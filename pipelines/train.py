"""Dataset -> checkpoints: what is trained, on what, judged by what. The mathematics lives in `recsys`."""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines import models
from pipelines.techniques import debiasing, denoisers, hard_negatives, helpers, require_two_classes
from pipelines.terms import contrast_terms
from pipelines.workspace import identity
from recsys import evaluate
from recsys.balance.fixed import Fixed
from recsys.columns import TRAIN, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.debias.ips import of_targets
from recsys.errors import InputError
from recsys.loader import ExampleLoader, Prefetched, SequenceLoader
from recsys.sample import Mixed
from recsys.train.job import Job, Progress
from recsys.train.loop import fit
from recsys.train.ranking_objective import RankingLearner
from recsys.train.retrieval_objective import RetrievalLearner

EVALUATION_BATCH = 8192


def train_retriever(
    config: RunConfig, data: Dataset, out: Path, *, device: torch.device, progress: Progress, **options: Any
) -> dict[str, Any]:
    """Train the next-item model and write its checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    return fit(
        retriever_job(config, data, device), config.retriever.fit, seed=config.seed, device=device, out=out,
        identity=identity(config, data, "retriever"), progress=progress, **options,
    )  # fmt: skip


def train_ranker(
    config: RunConfig, data: Dataset, out: Path, *, device: torch.device, progress: Progress, **options: Any
) -> dict[str, Any]:
    """Train the multi-task model and write its checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    return fit(
        ranker_job(config, data, device), config.ranker.fit, seed=config.seed, device=device, out=out,
        identity=identity(config, data, "ranker"), progress=progress, **options,
    )  # fmt: skip


def retriever_job(config: RunConfig, data: Dataset, device: torch.device) -> Job:
    """The next-item model, its batches, losses and validation. Raises InputError where the data lacks something."""
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
        means |= evaluate.embedding_health(graph, judged, max_history=config.max_history)
        return {f"valid/{name}": value for name, value in means.items()}

    train_count_I = torch.tensor(data.train_count_I, device=device)
    denoise, hard = denoisers(part.denoise, 1, config.seed), hard_negatives(config, data)
    codes = models.item_codes(config, data, device)
    weight_I = None if part.debias is None else torch.tensor(of_targets(part.debias, data.train_count_I), device=device).float()
    learner = RetrievalLearner(
        loss=part.loss, similarity=part.similarity, codes=codes, matryoshka=part.matryoshka,
        sampler=(part.negatives or Mixed()).build(train_count_I) if part.loss.sampled else None,
        hard=hard, denoise=denoise[0] if denoise else None, name=f"denoise {part.denoise.kind}" if part.denoise else "",
        terms=contrast_terms(config, data, codes),
        weight_I=weight_I,
    )  # fmt: skip
    return Job(
        name="retriever", build=lambda: models.retriever(config, data), learner=learner,
        balance=Fixed().build(learner.weights), loader=Prefetched(loader), validate=validate, main_metric=f"valid/NDCG@{k}",
        helpers=helpers((*denoise, hard)),
    )  # fmt: skip


def ranker_job(config: RunConfig, data: Dataset, device: torch.device) -> Job:
    """The multi-task model, its batches, losses and validation. Raises InputError where the data lacks something."""
    part, tasks = config.ranker, config.tasks
    _require_rows(part.fit.batch_size, "ranker")
    make_loader = functools.partial(
        ExampleLoader, data, tasks=list(tasks), max_history=config.ranker_history, seed=config.seed,
        behaviours=part.sharing.reads_behaviours,
    )  # fmt: skip
    debias, propensity_X = debiasing(config, data, device)
    loader = make_loader(
        split=TRAIN, batch_size=part.fit.batch_size, rank=dist.get_rank(), world_size=dist.get_world_size(),
        propensity_X=propensity_X, arm=part.debias.arm if part.debias else None,
        together=part.denoise.together if part.denoise else 1,
    )  # fmt: skip
    valid = make_loader(split=VALID, batch_size=EVALUATION_BATCH)
    if not len(valid.row_X) or not loader.num_batches(0):
        raise InputError(f"{data.folder}: the split leaves no labelled training or validation examples: change data.split")
    for task in (task for task in tasks if task not in config.regression):
        require_two_classes(data, task, loader.row_X)

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

    denoise = denoisers(part.denoise, len(tasks), config.seed)
    learner = RankingLearner(
        tasks,
        tuple(config.regression),
        part.regression,
        denoise,
        f"denoise {part.denoise.kind}" if part.denoise else "",
        debias,
    )
    return Job(
        name="ranker", build=lambda: models.ranker(config, data), learner=learner, balance=part.balance.build(tasks),
        loader=Prefetched(loader), validate=validate,
        main_metric="valid/AUC/mean" if len(config.regression) < len(tasks) else "valid/error/mean",
        helpers=helpers([*denoise, *([debias.module] if debias else [])]),
    )  # fmt: skip


def _require_rows(batch_size: int, part: str) -> None:
    processes = dist.get_world_size()
    if processes > 1 and batch_size < 2 * processes:  # the last batch may be half as large
        raise InputError(f"{part}.fit.batch_size {batch_size} is over all {processes} processes: raise it to {2 * processes}")
