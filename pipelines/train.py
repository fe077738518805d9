"""Dataset -> checkpoints: what is trained, on what, judged by what. The mathematics lives in `recsys`."""

import functools
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.workspace import identity
from recsys import evaluate
from recsys.columns import TRAIN, VALID
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.loader import ExampleLoader, Prefetched, SequenceLoader
from recsys.models.ranker import Ranker, RankingGraph
from recsys.models.retriever import RetrievalGraph, Retriever
from recsys.train.loop import Job, Progress, fit
from recsys.train.objective import ranking_objective, retrieval_objective

EVALUATION_BATCH = 8192


def train_retriever(
    config: RunConfig,
    data: Dataset,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
    stop_after_steps: int | None = None,
) -> dict[str, Any]:
    """Train the next-item model and write its checkpoint; returns the checkpoint's manifest."""
    part = config.retriever
    judged = evaluate.judged_users(data, VALID, filter_seen=config.evaluation.filter_seen)
    loader = SequenceLoader(data, config.max_history, part.fit.batch_size, config.seed, dist.get_rank(), dist.get_world_size())
    if not len(judged.user_U) or not loader.num_batches(0):
        raise InputError(f"{data.folder}: the split leaves no training or validation events: change data.split")
    k = config.evaluation.ks[0]
    train_count_I = torch.tensor(data.train_count_I, device=device)

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        graph = retrieval_graph(config, state)
        item_UK = evaluate.recommend(
            graph, judged.history, k=k, max_history=config.max_history, filter_seen=config.evaluation.filter_seen
        )
        means, _ = evaluate.retrieval_metrics(item_UK, judged, [k], data.num_items)
        return {f"valid/{name}": value for name, value in means.items()}

    job = Job(
        name="retriever",
        build=lambda: Retriever(part.encoder, data.num_items, config.max_history),
        loader=Prefetched(loader),
        objective=lambda model, batch, step, generator: retrieval_objective(
            model, batch, step, loss=part.loss, denoise=part.denoise, train_count_I=train_count_I, generator=generator
        ),
        validate=validate,
        main_metric=f"valid/NDCG@{k}",
    )
    return fit(
        job, part.fit, seed=config.seed, device=device, out=out, identity=identity(config, data, "retriever"),
        progress=progress, stop_after_steps=stop_after_steps,
    )  # fmt: skip


def train_ranker(
    config: RunConfig,
    data: Dataset,
    out: Path,
    *,
    device: torch.device,
    progress: Progress,
    stop_after_steps: int | None = None,
) -> dict[str, Any]:
    """Train the multi-task model and write its checkpoint; returns the checkpoint's manifest."""
    part, tasks = config.ranker, config.tasks
    make_loader = functools.partial(ExampleLoader, data, tasks=list(tasks), max_history=config.ranker_history, seed=config.seed)
    loader = make_loader(split=TRAIN, batch_size=part.fit.batch_size, rank=dist.get_rank(), world_size=dist.get_world_size())
    valid = make_loader(split=VALID, batch_size=EVALUATION_BATCH)
    if not len(valid.row_X) or not loader.num_batches(0):
        raise InputError(f"{data.folder}: the split leaves no labelled training or validation examples: change data.split")

    def validate(state: dict[str, Tensor]) -> dict[str, float]:
        predictions = evaluate.predict(ranking_graph(config, data, state), valid)
        metrics = evaluate.ranking_metrics(
            predictions, list(tasks), ece_bins=config.evaluation.ece_bins, seed=config.seed, intervals=False
        )
        aucs = [metrics[f"AUC/{task}"] for task in tasks]
        known = [value for value in aucs if value == value]
        metrics["AUC/mean"] = sum(known) / len(known) if known else 0.5
        return {f"valid/{name}": value for name, value in metrics.items()}

    job = Job(
        name="ranker",
        build=lambda: Ranker(part.sharing, data.num_users, data.num_items, data.features, part.dim, len(tasks), part.dropout),
        loader=Prefetched(loader),
        objective=lambda model, batch, step, _: ranking_objective(model, batch, step, task_weights=tasks, denoise=part.denoise),
        validate=validate,
        main_metric="valid/AUC/mean",
    )
    return fit(
        job, part.fit, seed=config.seed, device=device, out=out, identity=identity(config, data, "ranker"),
        progress=progress, stop_after_steps=stop_after_steps,
    )  # fmt: skip


def retrieval_graph(config: RunConfig, state: dict[str, Tensor]) -> RetrievalGraph:
    """The serving form of a trained retriever."""
    return RetrievalGraph.from_checkpoint(state, config.retriever.encoder, config.max_history, config.serving.num_candidates)


def ranking_graph(config: RunConfig, data: Dataset, state: dict[str, Tensor]) -> RankingGraph:
    """The serving form of a trained ranker."""
    codes = {f["name"]: data.codes(f["name"], f["owner"]) for f in data.features if f["owner"] != "context"}
    part = config.ranker
    return RankingGraph(state, part.sharing, data.features, codes, part.dim, len(config.tasks), config.ranker_history)
