"""Checkpoints -> bundle: ONNX graphs, tables, id maps and lineage, written only when torch and ONNX agree."""

import functools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pipelines import models
from pipelines.semantic_ids import semantic_ids
from pipelines.serving_cost import serving_cost
from pipelines.workspace import Workspace, check_lineage, parts, served_part
from recsys.artefact import fingerprint, write_artefact
from recsys.behaviours import behaviours
from recsys.columns import BEHAVIOUR, ITEM, ITEMS_FILE, TIME_MS, TIMELINE_FILE, USERS_FILE
from recsys.config import RunConfig
from recsys.data.arrow import write_columns
from recsys.dataset import Dataset
from recsys.export.generation_parity import check_generation
from recsys.export.graphs import export_candidates, export_ranking
from recsys.export.parity import Parity, check_ranking, check_retrieval, retrieval_scores
from recsys.train.checkpoint import load_model_state
from recsys.train.distributed import place
from recsys.train.loop import MODEL_FILE

GRAPHS = {"retriever": "retrieval.onnx", "ranker": "ranking.onnx"}
GENERATION = "generation.onnx"  # beside the others where a generator finds the candidates
PARITY_FILE = "parity.npz"


def export_run(config: RunConfig, data: Dataset, workspace: Workspace, *, device: torch.device) -> dict[str, Any]:
    """Write the bundle and return its manifest, and beside it, as `measured`, what one list of the bundle costs.

    Raises InputError, and writes nothing, when ONNX differs from torch.
    """
    manifests = {part: check_lineage(workspace, part, data, config) for part in parts(config)}
    with write_artefact(workspace.bundle, "bundle", name=config.name) as (folder, manifest):
        checked = {"retriever": _retriever(config, data, workspace, folder / GRAPHS["retriever"], device)}
        if config.serving.candidates == "generator":
            checked["generator"] = _generator(config, data, workspace, folder / GENERATION, device)
        if "ranker" in manifests:
            checked["ranker"] = _ranker(config, data, workspace, folder / GRAPHS["ranker"], device)
        _save_parity(folder / PARITY_FILE, list(checked.values()))
        for name in (USERS_FILE, ITEMS_FILE):
            shutil.copyfile(data.folder / name, folder / name)
        masks = {BEHAVIOUR: behaviours(data, list(config.tasks))} if config.ranker.sharing.reads_behaviours else {}
        write_columns({ITEM: data.item_E, TIME_MS: data.time_ms_E, **masks}, folder / TIMELINE_FILE)
        manifest["parity_max_error"] = {part: parity.max_error for part, parity in checked.items()}
        manifest["model"] = {
            "max_history": config.max_history,
            "candidates": "generation" if "generator" in checked else "retrieval",
            "num_candidates": min(config.serving.num_candidates, data.num_items - 2),
            "num_items": data.num_items,
            "tasks": list(config.tasks),
            "value": config.value,
            "context": _context_values(data) if config.tasks else {},
        }
        manifest["lineage"] = {
            "config": config.name,
            "config_hash": fingerprint(config.model_dump(mode="json")),
            "data_fingerprint": data.manifest["data_fingerprint"],
            "dataset": data.manifest["fingerprint"],
            "checkpoints": {part: found["fingerprint"] for part, found in manifests.items()},
            "mlflow_run": workspace.run_id,
            "code": manifest["code"],
        }
    return {**manifest, "measured": serving_cost(workspace.bundle, rng=np.random.default_rng(config.seed))}


def _retriever(config: RunConfig, data: Dataset, workspace: Workspace, path: Path, device: torch.device) -> Parity:
    part, state = config.retriever, load_file(workspace.checkpoint(served_part(config, "retriever")) / MODEL_FILE)
    export_candidates(models.retrieval_graph(config, data, state), config.max_history, path)
    model = place(models.retriever(config, data), device)
    load_model_state(model, state)
    score = functools.partial(
        retrieval_scores, model.eval(), models.item_codes(config, data, device), part.similarity, config.serving.dim
    )
    return check_retrieval(score, path, num_items=data.num_items, max_history=config.max_history, seed=config.seed)


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


def _save_parity(path: Path, checked: list[Parity]) -> None:
    """Inputs with torch's outputs: what a server checks its runtime against before it answers."""
    arrays: dict[str, Any] = {name: value for parity in checked for name, value in parity.sample.items()}
    np.savez(path, **arrays)


def _context_values(data: Dataset) -> dict[str, list[str]]:
    """Each context feature's values in the order of their codes, which begin at FIRST_ID."""
    return {name: data.vocabulary("context", name) for name in data.context}
