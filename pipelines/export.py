"""Checkpoints -> bundle: ONNX graphs, tables, id maps and lineage, written only when torch and ONNX agree."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pipelines import models
from pipelines.bundle_files import model_facts, write_parity, write_reference, write_stand_ins, write_tables
from pipelines.bundle_retrieval import store_retrieval
from pipelines.reference import reference
from pipelines.semantic_ids import semantic_ids
from pipelines.serving_cost import serving_cost
from pipelines.workspace import Workspace, check_lineage, parts, served_part
from recsys.artefact import fingerprint, write_artefact
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.export.generation_parity import check_generation
from recsys.export.graphs import export_candidates, export_ranking
from recsys.export.parity import Parity, check_ranking, check_retrieval, retrieval_scores
from recsys.export.retrieval import export_retrieval
from recsys.rerank import check_categories
from recsys.train.checkpoint import load_model_state
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE
from serving.bundle.bundle import GENERATION_FILE, PARITY_FILE, RANKING_FILE, RETRIEVAL_FILE, Bundle

__all__ = ["GRAPHS", "PARITY_FILE", "export_run"]

GRAPHS = {"retriever": RETRIEVAL_FILE, "ranker": RANKING_FILE}


def export_run(config: RunConfig, data: Dataset, workspace: Workspace, *, device: torch.device) -> dict[str, Any]:
    """Write the bundle and return its manifest, and beside it, as `measured`, what one list of the bundle costs.

    Raises InputError, and writes nothing, when ONNX differs from torch, or an index or a small table finds too little.
    """
    manifests = {part: check_lineage(workspace, part, data, config) for part in parts(config)}
    categories = data.vocabulary("item", config.category) if config.category else []
    check_categories(config.serving.rerank, config.category, categories)
    with write_artefact(workspace.bundle, "bundle", name=config.name) as (folder, manifest):
        vector_ID, exact = _retriever(config, data, workspace, folder / RETRIEVAL_FILE, device)
        stored = store_retrieval(config, data, folder, vector_ID, exact)
        checked = {"retriever": stored.parity}
        if config.serving.candidates == "generator":
            checked["generator"] = _generator(config, data, workspace, folder / GENERATION_FILE, device)
        if "ranker" in manifests:
            checked["ranker"] = _ranker(config, data, workspace, folder / RANKING_FILE, device)
        write_parity(list(checked.values()), folder)
        write_tables(config, data, folder)
        write_stand_ins(config, data, folder)
        candidates = "generation" if "generator" in checked else "retrieval"
        manifest["model"] = model_facts(config, data, folder, candidates=candidates, index=stored.index)
        manifest["parity_max_error"] = {part: parity.max_error for part, parity in checked.items()}
        manifest["retrieval_recall"] = stored.recall
        manifest["lineage"] = {
            "config": config.name,
            "config_hash": fingerprint(config.model_dump(mode="json")),
            "data_fingerprint": data.manifest["data_fingerprint"],
            "dataset": data.manifest["fingerprint"],
            "checkpoints": {part: found["fingerprint"] for part, found in manifests.items()},
            "mlflow_run": workspace.run_id,
            "code": manifest["code"],
        }
        write_reference(reference(Bundle.open(folder, manifest), rng=np.random.default_rng(config.seed)), folder)
    return {**manifest, "measured": serving_cost(workspace.bundle, rng=np.random.default_rng(config.seed))}


def _retriever(
    config: RunConfig, data: Dataset, workspace: Workspace, path: Path, device: torch.device
) -> tuple[np.ndarray, Parity]:
    """The item vectors as they are scored, and how well the exact graph at `path` agrees."""
    part, state = config.retriever, load_file(workspace.checkpoint(served_part(config, "retriever")) / MODEL_FILE)
    graph = models.retrieval_graph(config, data, state)
    export_retrieval(graph, config.max_history, data.num_items, path)
    model = place(models.retriever(config, data), device)
    load_model_state(model, state)
    score = functools.partial(
        retrieval_scores, model.eval(), models.item_codes(config, data, device), part.similarity, config.serving.dim
    )
    parity = check_retrieval(score, path, num_items=data.num_items, max_history=config.max_history, seed=config.seed)
    return graph.scored_ID.numpy(), parity


def _generator(config: RunConfig, data: Dataset, workspace: Workspace, path: Path, device: torch.device) -> Parity:
    ids = semantic_ids(config, data, workspace)
    state = load_file(workspace.checkpoint(served_part(config, "generator")) / MODEL_FILE)
    export_candidates(models.generation_graph(config, data, ids, state), config.max_history, path)
    model = place(models.generator(config, data, ids), device)
    load_model_state(model, state)
    codes = models.generator_item_codes(config, data, ids, device)
    return check_generation(model.eval(), codes, path, max_history=config.max_history, seed=config.seed)


def _ranker(config: RunConfig, data: Dataset, workspace: Workspace, path: Path, device: torch.device) -> Parity:
    state = load_file(workspace.checkpoint("ranker") / MODEL_FILE)
    export_ranking(models.ranking_graph(config, data, state), config.max_history, len(data.context), path)
    model = place(models.ranker(config, data), device)
    load_model_state(model, state)
    return check_ranking(
        model.eval(), path, num_users=data.num_users, num_items=data.num_items,
        max_history=config.max_history, ranker_history=config.ranker_history, seed=config.seed,
        codes={f["name"]: (f["owner"], data.codes(f["name"], f["owner"])) for f in data.features if f["owner"] != "context"},
        context_sizes=[(f["name"], f["size"]) for f in data.features if f["owner"] == "context"],
    )  # fmt: skip
