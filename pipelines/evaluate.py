"""Checkpoints -> metrics on the test split, beside the floor, with every user's value kept."""

import json
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import load_file

from pipelines.candidates import candidate_graph, candidate_parts, kind_of
from pipelines.models import ranking_graph
from pipelines.train import EVALUATION_BATCH
from pipelines.workspace import Workspace, check_lineage, parts
from recsys import evaluate
from recsys.artefact import fingerprint, write_artefact
from recsys.columns import TEST
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import Graph
from recsys.loader import ExampleLoader
from recsys.models.retriever import RetrievalGraph
from recsys.train.loop import MODEL_FILE

METRICS_FILE = "metrics.json"
PER_USER_FILE = "per_user.parquet"


def evaluate_run(config: RunConfig, data: Dataset, workspace: Workspace) -> dict[str, Any]:
    """Write the metrics artefact and return its content: protocol, retrieval with floors, ranking."""
    manifests = {part: check_lineage(workspace, part, data, config) for part in parts(config)}
    result: dict[str, Any] = {"protocol": protocol(config)}
    with write_artefact(
        workspace.metrics, "metrics",
        inputs={part: manifest["fingerprint"] for part, manifest in manifests.items()},
        data_fingerprint=data.manifest["data_fingerprint"], protocol=result["protocol"],
    ) as (folder, _):  # fmt: skip
        result["retrieval"], per_user = _retrieval(config, data, workspace)
        per_user.write_parquet(folder / PER_USER_FILE)
        if "ranker" in manifests:
            result["ranking"] = _ranking(config, data, workspace.checkpoint("ranker"))
        (folder / METRICS_FILE).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def protocol(config: RunConfig) -> dict[str, Any]:
    """What has to be equal before two results may stand in one ranking."""
    rules = {
        "split": config.data.split.model_dump(mode="json"),
        "time_ties": config.data.events.ties,
        "candidates": "every item of the log",
        "request_time": config.evaluation.request_time,
        "seen_items": "removed" if config.evaluation.filter_seen else "kept",
        "score_ties": "undefined for the model, lower id first for the floor",
        "floor_counts": "training split",
    }
    return {**rules, "hash": fingerprint(rules)}


def protocol_line(rules: dict[str, Any]) -> str:
    """The protocol in a few words and its hash, as the tag by which runs are held comparable."""
    return f"{rules['split']['kind']} split, seen items {rules['seen_items']}, ties by {rules['time_ties']} [{rules['hash']}]"


def _retrieval(config: RunConfig, data: Dataset, workspace: Workspace) -> tuple[dict[str, Any], pl.DataFrame]:
    """Means of the served model, of the other parts that find candidates and of each floor, and one row per user, model and
    metric."""
    settings = config.evaluation
    judged = evaluate.judged_users(data, TEST, filter_seen=settings.filter_seen, request_time=settings.request_time)
    if not len(judged.user_U):
        raise InputError(f"{data.folder}: no user has a test event: change data.split")
    k = min(max(settings.ks), data.num_items)
    graphs, others = _graphs(config, data, workspace)
    lists = {
        name: evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=settings.filter_seen)
        for name, graph in (graphs | others).items()
    }
    lists |= dict(evaluate.floors(data, judged, k=k, filter_seen=settings.filter_seen))
    means, tables = {}, []
    ks = [each for each in settings.ks if each <= k]
    for name, item_UK in lists.items():
        means[name], per_user = evaluate.retrieval_metrics(item_UK, judged, ks, data.num_items)
        tables.append(pl.DataFrame({"user": judged.user_U, **per_user}).with_columns(model=pl.lit(name)))
    result: dict[str, Any] = {"users": len(judged.user_U), "served": candidate_parts(config)[0], "model": means.pop("model")}
    if isinstance(graph := graphs["model"], RetrievalGraph):
        result["health"] = evaluate.embedding_health(graph, judged, max_history=config.max_history)
    if narrow := {name: means.pop(name) for name in graphs if name != "model"}:
        result["widths"] = narrow
    if others:
        result["parts"] = {name: means.pop(name) for name in others}
    return {**result, "floor": means}, pl.concat(tables)


def _graphs(config: RunConfig, data: Dataset, workspace: Workspace) -> tuple[dict[str, Graph], dict[str, Graph]]:
    """The served model, at each width that it is trained for, and the other parts that find candidates."""
    served, *rest = candidate_parts(config)
    widths = _served_widths(config) if kind_of(config, served) == "retriever" else {"model": None}
    graphs = {
        name: candidate_graph(config, data, workspace, served, score_dim=width) for name, width in widths.items()
    }  # fmt: skip
    return graphs, {part: candidate_graph(config, data, workspace, part) for part in rest}


def _served_widths(config: RunConfig) -> dict[str, int | None]:
    """The model as it is served, and at each other width that it was trained for."""
    nested = config.retriever.matryoshka.dims if config.retriever.matryoshka else ()
    full = config.retriever.encoder.dim
    served = config.serving.dim or full
    return {"model": None, **{f"width {dim}": dim for dim in (*nested, full) if nested and dim != served}}


def judged_examples(config: RunConfig, data: Dataset) -> ExampleLoader:
    """The test split as the ranker reads it. Raises InputError where it has no labelled example."""
    loader = ExampleLoader(
        data, tasks=list(config.tasks), split=TEST, max_history=config.ranker_history, batch_size=EVALUATION_BATCH,
        seed=config.seed, behaviours=config.ranker.sharing.reads_behaviours,
    )  # fmt: skip
    if not len(loader.row_X):
        raise InputError(f"{data.folder}: no labelled example falls in the test split: change data.split")
    return loader


def _ranking(config: RunConfig, data: Dataset, checkpoint: Path) -> dict[str, Any]:
    tasks, loader = list(config.tasks), judged_examples(config, data)
    predictions = evaluate.predict(ranking_graph(config, data, load_file(checkpoint / MODEL_FILE)), loader)
    flat = evaluate.ranking_metrics(
        predictions, tasks, ece_bins=config.evaluation.ece_bins, seed=config.seed, intervals=True, numbers=config.regression
    )
    known = {name: value for name, value in flat.items() if value == value}  # a metric that does not exist is left out
    by_task = {
        task: {name.split("/")[0]: value for name, value in known.items() if name.split("/", 1)[1] == task} for task in tasks
    }
    return {"examples": len(loader.row_X), "tasks": by_task}


def flat_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The result under MLflow names: test/<metric>, test/<metric>/<task>, floor/<name>/<metric>."""
    found = result["retrieval"]
    flat = {f"test/{name}": value for part in ("model", "health") for name, value in found.get(part, {}).items()}
    for width, means in found.get("widths", {}).items():
        flat |= {f"test/{name}/{width.replace(' ', '_')}": value for name, value in means.items()}
    for part, means in found.get("parts", {}).items():
        flat |= {f"test/{name}/{part}": value for name, value in means.items()}
    for floor, means in found["floor"].items():
        flat |= {f"floor/{floor}/{name}": value for name, value in means.items()}
    for task, means in result.get("ranking", {}).get("tasks", {}).items():
        flat |= {f"test/{name}/{task}": value for name, value in means.items()}
    return flat
