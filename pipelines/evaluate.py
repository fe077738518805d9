"""Checkpoints -> metrics on the test split, beside the floor, with every user's value kept."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from safetensors.torch import load_file

from pipelines.candidates import candidate_graph, candidate_parts, kind_of
from pipelines.models import ranking_graph
from pipelines.per_user import METRICS_FILE, PER_USER_FILE, PER_USER_RANKING_FILE
from pipelines.train import EVALUATION_BATCH
from pipelines.workspace import Workspace, check_lineage, parts
from recsys import evaluate
from recsys.artefact import write_artefact
from recsys.columns import TEST
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.evaluate import Graph
from recsys.loader import ExampleLoader
from recsys.models.retriever import RetrievalGraph
from recsys.protocol import Protocol
from recsys.train.loop import MODEL_FILE


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is the same for every model that is judged on a dataset: the users, their slices, and the floors' lists.

    Shapes: U = users judged, K = list length.
    """

    judged: evaluate.Judged
    slices: evaluate.Slices
    floors: dict[str, np.ndarray]  # item_UK
    surroundings: evaluate.Surroundings
    ks: list[int]

    @classmethod
    def of(cls, config: RunConfig, data: Dataset) -> Self:
        """Raises InputError where the test split has nobody, or no K fits the catalogue."""
        rules = config.evaluation
        judged = evaluate.judged_users(data, TEST, filter_seen=rules.filter_seen, request_time=rules.request_time)
        if not len(judged.user_U):
            raise InputError(f"{data.folder}: no user has a test event: change data.split")
        slices = evaluate.built_in_slices(data, judged)
        slices |= evaluate.config_slices(data, judged, user=rules.user_slices, item=rules.item_slices)
        ks = [each for each in rules.ks if each <= data.num_items]
        if not ks:
            raise InputError(f"evaluation.ks {list(rules.ks)}: the catalogue has fewer items than any K: add a smaller one")
        floors = dict(evaluate.floors(data, judged, k=_longest(config, data), filter_seen=rules.filter_seen))
        surroundings = evaluate.Surroundings.of(data, floors["popularity"], config.category)
        return cls(judged, slices, floors, surroundings, ks)


def _longest(config: RunConfig, data: Dataset) -> int:
    return min(max(config.evaluation.ks), data.num_items)


def evaluate_run(
    config: RunConfig, data: Dataset, workspace: Workspace, *, held_out: HeldOut | None = None
) -> dict[str, Any]:  # fmt: skip
    """Write the metrics artefact and return its content: protocol, retrieval with floors and slices, ranking.

    `held_out`: of this config and dataset, where it is known already.
    """
    manifests = {part: check_lineage(workspace, part, data, config) for part in parts(config)}
    result: dict[str, Any] = {"protocol": Protocol.of(config).document()}
    with write_artefact(
        workspace.metrics, "metrics",
        inputs={part: manifest["fingerprint"] for part, manifest in manifests.items()},
        data_fingerprint=data.manifest["data_fingerprint"], protocol=result["protocol"],
    ) as (folder, _):  # fmt: skip
        result["retrieval"], per_user = _retrieval(config, data, workspace, held_out or HeldOut.of(config, data))
        per_user.write_parquet(folder / PER_USER_FILE)
        if "ranker" in manifests:
            result["ranking"], per_user = _ranking(config, data, workspace.checkpoint("ranker"))
            per_user.write_parquet(folder / PER_USER_RANKING_FILE)
        (folder / METRICS_FILE).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    return result


def _retrieval(
    config: RunConfig, data: Dataset, workspace: Workspace, held_out: HeldOut
) -> tuple[dict[str, Any], pl.DataFrame]:  # fmt: skip
    """Means of the served model, of the other parts that find candidates and of each floor, and one row per user, model and
    metric."""
    judged, floors, surroundings, k = held_out.judged, held_out.floors, held_out.surroundings, _longest(config, data)
    ks, seen = held_out.ks, config.evaluation.filter_seen
    graphs, others = _graphs(config, data, workspace)
    lists = {
        name: evaluate.recommend(graph, judged, k=k, max_history=config.max_history, filter_seen=seen)
        for name, graph in (graphs | others).items()
    }
    means, tables, sliced = {}, [], {}
    for name, item_UK in (lists | floors).items():
        means[name], per_user = evaluate.retrieval_metrics(item_UK, judged, ks, data.num_items, surroundings=surroundings)
        tables.append(pl.DataFrame({"user": judged.user_U, **per_user}).fill_nan(None).with_columns(model=pl.lit(name)))
        if name == "model" or name in floors:
            sliced[name] = evaluate.slice_metrics(item_UK, judged, per_user, ks, held_out.slices, surroundings)
    result: dict[str, Any] = {"users": len(judged.user_U), "served": candidate_parts(config)[0], "model": means["model"]}
    if isinstance(graph := graphs["model"], RetrievalGraph):
        result["health"] = evaluate.embedding_health(graph, judged, max_history=config.max_history)
    if narrow := {name: means[name] for name in graphs if name != "model"}:
        result["widths"] = narrow
    if others:
        result["parts"] = {name: means[name] for name in others}
    result |= {"floor": {name: means[name] for name in floors}, "slices": _by_slice(sliced)}
    return result, pl.concat(tables)


def _by_slice(sliced: dict[str, Iterator[tuple[str, int, dict[str, float]]]]) -> dict[str, Any]:
    """Slice -> its users, the model's means over them and each floor's."""
    found: dict[str, Any] = {name: {"users": users, "model": means, "floor": {}} for name, users, means in sliced.pop("model")}
    for floor, slices in sliced.items():
        for name, _, means in slices:
            found[name]["floor"][floor] = means
    return found


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
        seed=config.seed, behaviours=config.ranker.sharing.reads_behaviours, dense=config.ranker_features,
    )  # fmt: skip
    if not len(loader.row_X):
        raise InputError(f"{data.folder}: no labelled example falls in the test split: change data.split")
    return loader


def _ranking(config: RunConfig, data: Dataset, checkpoint: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """Metrics of each task with its reliability curve, and one row per user and task."""
    tasks, loader, bins = list(config.tasks), judged_examples(config, data), config.evaluation.ece_bins
    predictions = evaluate.predict(ranking_graph(config, data, load_file(checkpoint / MODEL_FILE)), loader)
    flat = evaluate.ranking_metrics(
        predictions, tasks, ece_bins=bins, seed=config.seed, intervals=True, numbers=config.regression
    )  # fmt: skip
    known = {name: value for name, value in flat.items() if value == value}  # a metric that does not exist is left out
    by_task: dict[str, Any] = {
        task: {name.split("/")[0]: value for name, value in known.items() if name.split("/", 1)[1] == task} for task in tasks
    }
    for task, curve in evaluate.reliability_curves(predictions, tasks, bins=bins, numbers=config.regression).items():
        by_task[task]["reliability"] = curve
    per_user = evaluate.per_user_ranking(predictions, tasks, numbers=config.regression)
    return {"examples": len(loader.row_X), "tasks": by_task}, per_user


def flat_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The result under MLflow names: test/<metric>, test/<metric>/<task>, floor/<name>/<metric>, slice/<name>/<metric>."""
    found = result["retrieval"]
    flat = {f"test/{name}": value for part in ("model", "health") for name, value in found.get(part, {}).items()}
    for width, means in found.get("widths", {}).items():
        flat |= {f"test/{name}/{width.replace(' ', '_')}": value for name, value in means.items()}
    for part, means in found.get("parts", {}).items():
        flat |= {f"test/{name}/{part}": value for name, value in means.items()}
    for floor, means in found["floor"].items():
        flat |= {f"floor/{floor}/{name}": value for name, value in means.items()}
    for slice_, each in found["slices"].items():
        flat |= {f"slice/{slice_}/{name}": value for name, value in each["model"].items()}
    for task, means in result.get("ranking", {}).get("tasks", {}).items():
        flat |= {f"test/{name}/{task}": value for name, value in means.items() if name != "reliability"}
    return flat
