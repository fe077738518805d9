"""Sweeps on planted data: a config with its dataset, and what a sweep has left in MLflow and Optuna."""

import json
from pathlib import Path
from typing import Any

import optuna
import yaml
from planted_data import planted_config, write_planted

from pipelines.sweeping.search import EXPERIMENT
from pipelines.sweeping.study import counted, number_of
from recsys import track
from recsys.artefact import MANIFEST
from recsys.config import RunConfig

WORDS = ["sweep", "--config", "planted.yaml", "--workspace", "ws"]
EPOCHS = 6


def write_run(folder: Path, **fit: Any) -> RunConfig:
    """A config and a workspace whose dataset is of it."""
    config = planted_config({"epochs": EPOCHS, "batch_size": 32, **fit})
    (folder / "planted.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    path = write_planted(folder / "ws" / "dataset").folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config.data.model_dump(mode="json")}))
    return config


def runs_of(name: str) -> tuple[track.RunSummary, list[track.RunSummary]]:
    """The newest sweep of this name, and its trials by number."""
    parent = next(each for each in track.list_runs(EXPERIMENT) if each.tags.get("sweep") == name and "trial" not in each.tags)
    return parent, sorted(track.children(parent.id), key=lambda each: int(each.tags["trial"]))


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.absolute() / 'optuna.db'}")
    return sorted(counted(study.get_trials()), key=number_of)


class StopsAt:
    """A judge that ends training at an epoch, and keeps what it heard."""

    def __init__(self, epoch: int):
        self.epoch, self.heard = epoch, dict[int, float]()

    def stops(self, epoch: int, value: float) -> bool:
        self.heard[epoch] = value
        return epoch >= self.epoch

    def heartbeat(self) -> None: ...
