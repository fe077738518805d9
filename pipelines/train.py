"""Dataset -> checkpoints: what is trained, on what, judged by what. The mathematics lives in `recsys`."""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines import models
from pipelines.parents import made_from
from pipelines.semantic_ids import semantic_ids
from pipelines.techniques import debiasing, denoisers, hard_negatives, helpers, require_two_classes
from pipelines.terms import contrast_terms
from pipelines.warm import Warm
from pipelines.workspace import Workspace, check_lineage, identity, read_state
from recsys import evaluate
from recsys.balance.fixed import Fixed
from recsys.columns import TRAIN, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.debias.ips import of_targets
from recsys.errors import InputError
from recsys.evaluate import Judged
from recsys.fit import Fit
from recsys.generate.ids import SemanticIds
from recsys.loader import ExampleLoader, Prefetched, SequenceLoader
from recsys.sample import Mixed
from recsys.train.generation_objective import GenerationLearner
from recsys.train.job import Job, Progress, Start
from recsys.train.loop import fit
from recsys.train.ranking_objective import RankingLearner
from recsys.train.retrieval_objective import RetrievalLearner

EVALUATION_BATCH = 8192


def train_retriever(
    config: RunConfig, data: Dataset, out: Path, *, device: torch.device, progress: Progress, warm: Warm | None = None,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train the next-item model and write its checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    return _fit(
        retriever_job(config, data, device, warm), data, config.retriever.fit, warm, seed=config.seed, device=device, out=out,
        identity=identity(config, data, "retriever"), progress=progress, **options,
    )  # fmt: skip


def train_generator(
    config: RunConfig, data: Dataset, out: Path, *, workspace: Workspace, device: torch.device, progress: Progress,
    start: Start | None = None, warm: Warm | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train the model that writes semantic ids, from the workspace's retriever where the config says so, and write its
    checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    part = config.generator
    assert part is not None, "a config without a generator has no such part"
    ids = semantic_ids(config, data, workspace)
    made = made_from(config, "generator", workspace, of_earlier_run=start is not None)
    if start is None and part.begin == "retriever":
        check_lineage(workspace, "retriever", data, config)
        began_from, state = read_state(workspace, "retriever", config)[:2]
        start = Start(began_from, models.generator_start(config, data, ids, state), of_another_kind=True)
    return _fit(
        generator_job(config, data, ids, device, warm), data, part.fit, warm, seed=config.seed, device=device, out=out,
        identity=identity(config, data, "generator", **made), progress=progress, start=start, **options,
    )  # fmt: skip


def train_ranker(
    config: RunConfig, data: Dataset, out: Path, *, device: torch.device, progress: Progress, warm: Warm | None = None,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train the multi-task model and write its checkpoint; returns the checkpoint's manifest. `options`: those of `fit`."""
    return _fit(
        ranker_job(config, data, device, warm), data, config.ranker.fit, warm, seed=config.seed, device=device, out=out,
        identity=identity(config, data, "ranker"), progress=progress, **options,
    )  # fmt: skip


def _fit(job: Job, data: Dataset, spec: Fit, warm: Warm | None, *, identity: dict[str, Any], **options: Any) -> dict[str, Any]:
    """As `fit`; on a warm day with its settings."""
    if warm is None:
        return fit(job, spec, identity=identity, **options)
    return fit(warm.job(job, data, spec), warm.fit(spec), identity=identity | warm.identity, **options)


def retriever_job(config: RunConfig, data: Dataset, device: torch.device, warm: Warm | None = None) -> Job:
    """The next-item model, its batches, losses and validation. Raises InputError where the data lacks something."""
    part, rules = config.retriever, config.evaluation
    loader, judged = _windows(config, data, "retriever", warm), validation(config, data)
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
        terms=(*contrast_terms(config, data, codes), *(warm.terms(data, device) if warm is not None else ())),
        weight_I=weight_I,
    )  # fmt: skip
    return Job(
        name="retriever", build=lambda: models.retriever(config, data), learner=learner,
        balance=Fixed().build(learner.weights), loader=Prefetched(loader), validate=validate, main_metric=f"valid/NDCG@{k}",
        helpers=helpers((*denoise, hard)),
    )  # fmt: skip


def generator_job(config: RunConfig, data: Dataset, ids: SemanticIds, device: torch.device, warm: Warm | None = None) -> Job:
    """The model that writes semantic ids, its batches, loss and validation. Raises InputError where the data lacks some."""
    part = config.generator
    assert part is not None
    loader, judged = _windows(config, data, "generator", warm), validation(config, data)
    k, seen = config.evaluation.ks[0], config.evaluation.filter_seen

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        graph = models.generation_graph(config, data, ids, state).to(device)
        item_UK = evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=seen)
        means, _ = evaluate.retrieval_metrics(item_UK, judged, [k], data.num_items)
        return {f"valid/{name}": value for name, value in means.items()}

    learner = GenerationLearner(models.generator_item_codes(config, data, ids, device))
    return Job(
        name="generator", build=lambda: models.generator(config, data, ids), learner=learner,
        balance=Fixed().build(learner.weights), loader=Prefetched(loader), validate=validate, main_metric=f"valid/NDCG@{k}",
    )  # fmt: skip


def ranker_job(config: RunConfig, data: Dataset, device: torch.device, warm: Warm | None = None) -> Job:
    """The multi-task model, its batches, losses and validation. Raises InputError where the data lacks something."""
    part, tasks = config.ranker, config.tasks
    require_rows(part.fit.batch_size, "ranker")
    make_loader = functools.partial(
        ExampleLoader, data, tasks=list(tasks), max_history=config.ranker_history, seed=config.seed,
        behaviours=part.sharing.reads_behaviours, dense=config.ranker_features,
    )  # fmt: skip
    debias, propensity_X = debiasing(config, data, device)
    loader = make_loader(
        split=TRAIN, batch_size=part.fit.batch_size, rank=dist.get_rank(), world_size=dist.get_world_size(),
        propensity_X=propensity_X, arm=part.debias.arm if part.debias else None,
        together=part.denoise.together if part.denoise else 1,
        selection=None if warm is None else warm.selection(data, "ranker"),
    )  # fmt: skip
    valid = make_loader(split=VALID, batch_size=EVALUATION_BATCH)
    if not len(valid.row_X) or not len(loader.row_X):
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
        None if warm is None else warm.task_distillation(data, device),
    )
    return Job(
        name="ranker", build=lambda: models.ranker(config, data), learner=learner, balance=part.balance.build(tasks),
        loader=Prefetched(loader), validate=validate,
        main_metric="valid/AUC/mean" if len(config.regression) < len(tasks) else "valid/error/mean",
        helpers=helpers([*denoise, *([debias.module] if debias else [])]),
    )  # fmt: skip


def _windows(config: RunConfig, data: Dataset, name: str, warm: Warm | None) -> SequenceLoader:
    """The training windows of a model of sequences. Raises InputError where there are none, or no times that it reads."""
    part = getattr(config, name)
    encoder = part.encoder or config.retriever.encoder
    require_rows(part.fit.batch_size, name)
    if encoder.reads_time and not data.has_time:
        raise InputError(
            f"{name}.encoder {encoder.kind} reads when events happened, which this log does not say: choose sasrec"
        )
    loader = SequenceLoader(
        data, config.max_history, part.fit.batch_size, config.seed, dist.get_rank(), dist.get_world_size(),
        part.fit.batch_tokens, part.validation_too,
        None if warm is None else warm.selection(data, name),
    )  # fmt: skip
    if warm is None and not loader.num_batches(0):
        raise InputError(f"{data.folder}: the split leaves no training events: change data.split")
    return loader


def validation(config: RunConfig, data: Dataset) -> Judged:
    """Whom a model of sequences is validated on. Raises InputError where there is nobody."""
    rules = config.evaluation
    judged = evaluate.judged_users(data, VALID, filter_seen=rules.filter_seen, request_time=rules.request_time)
    if not len(judged.user_U):
        raise InputError(f"{data.folder}: the split leaves no validation events: change data.split")
    return judged


def require_rows(batch_size: int, part: str) -> None:
    """Every process needs a row of every batch."""
    processes = dist.get_world_size()
    if processes > 1 and batch_size < 2 * processes:  # the last batch may be half as large
        raise InputError(f"{part}.fit.batch_size {batch_size} is over all {processes} processes: raise it to {2 * processes}")
