"""A generator of the planted walks: its config, and a workspace with the retriever and the ids that it begins from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from planted_data import planted_config
from training_runs import Recorder, assert_same_tensors, resume_folder, state_without_clock, tensors

from pipelines.semantic_ids import build_ids
from pipelines.train import train_generator, train_retriever
from pipelines.workspace import Workspace
from recsys.config import RunConfig
from recsys.dataset import Dataset

FIT = {"batch_size": 32, "epochs": 2, "warmup_steps": 2, "embedding_learning_rate": 0.1, "learning_rate": 0.005}
WEAK = {**FIT, "epochs": 1}  # a retriever that leaves much to learn
IDS = {
    "vectors": {"kind": "collaborative"}, "quantizer": {"kind": "balanced_kmeans", "levels": 2, "codes": 4},
    "limits": {"max_collision_rate": 1.0},
}  # fmt: skip
DATA = {
    "events": {"path": "-", "user": "u", "item": "i"},
    "items": {"path": "-", "id": "i", "features": {"genre": "g", "tags": "t"}},
}


def generator_config(
    generator: dict[str, Any] | None = None, retriever: dict[str, Any] | None = None, dropout: float = 0.1, **sections: Any
) -> RunConfig:
    """`generator` and `retriever` change keys of their sections."""
    part = {"ids": IDS, "beam": 20, **(generator or {})}
    part["fit"] = {**FIT, **part.get("fit", {})}
    part["decoder"] = {"dropout": dropout, **part.get("decoder", {})}
    base = planted_config(WEAK).model_dump(mode="json")["retriever"]
    base["encoder"]["dropout"] = dropout
    return planted_config(WEAK, **{"data": DATA, "generator": part, "retriever": {**base, **(retriever or {})}, **sections})


def begun(config: RunConfig, data: Dataset, device: torch.device, root: Path) -> Workspace:
    """A workspace with a retriever and ids."""
    workspace = Workspace(root)
    train_retriever(config, data, workspace.checkpoint("retriever"), device=device, progress=Recorder())
    build_ids(config, data, workspace)
    return workspace


def train(config: RunConfig, data: Dataset, out: Path, workspace: Workspace, device: torch.device, **options: Any) -> Any:
    progress = options.pop("progress", Recorder())
    return train_generator(config, data, out, workspace=workspace, device=device, progress=progress, **options)


def assert_pieces_are_the_whole(train: Callable[[Path, int], Any], steps: int, whole: Path, pieces: Path) -> None:
    """`train(out, stop)` goes on to a step; stopped on its way there, and begun with other random numbers, it comes to the same
    as without a stop. `steps` are those of an epoch."""
    train(whole, steps + 1)
    for stop in (1, steps, steps + 1):
        torch.manual_seed(stop)
        train(pieces, stop)
    assert_same_tensors(tensors(resume_folder(whole)), tensors(resume_folder(pieces)))
    assert state_without_clock(resume_folder(whole)) == state_without_clock(resume_folder(pieces))
