"""Training runs on planted data and of a toy, what they leave, and how two of them are compared."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from planted_data import planted_config
from safetensors.torch import load_file
from torch import Tensor, nn

from pipelines.train import train_ranker, train_retriever
from recsys.artefact import read_manifest
from recsys.balance.fixed import Fixed
from recsys.batch import Batch
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.fit import Fit
from recsys.loader import SequenceLoader
from recsys.models.item_codes import ItemCodes
from recsys.models.item_tower import ItemTower
from recsys.models.retriever import Retriever
from recsys.models.sasrec import SASRec
from recsys.train.checkpoint import RESUME_FILE
from recsys.train.job import Drawn, Found, Job, Outcome
from recsys.train.loop import HISTORY_FILE, MODEL_FILE, fit

WORKER = Path(__file__).parent / "train_planted.py"
SAMPLED = {
    "loss": {"kind": "sampled_softmax"},
    "negatives": {"kind": "uniform", "count": 16},
}
TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {"retriever": train_retriever, "ranker": train_ranker}


class Recorder:
    """Progress that keeps the loss of each step and the metrics of each validation."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validations: list[dict[str, float]] = []

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        self.losses.append(metrics["loss"])

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        self.validations.append(metrics)


def config_of(**fit_settings: Any) -> RunConfig:
    """A planted config whose training draws random numbers."""
    config = planted_config({"epochs": 3, "batch_size": 32, **fit_settings})
    retriever = type(config.retriever).model_validate(config.retriever.model_dump() | SAMPLED)
    return config.model_copy(update={"retriever": retriever})


def train(part: str, config: RunConfig, data: Dataset, out: Path, device: torch.device, **options: Any) -> dict[str, Any]:
    recorder = options.pop("progress", Recorder())
    return TRAINERS[part](config, data, out, device=device, progress=recorder, **options)


def resume_folder(out: Path) -> Path:
    """The newest checkpoint of a run that is not at its end."""
    return max(out.with_name(out.name + ".resume").glob("step-*"))


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / (RESUME_FILE if folder.name.startswith("step-") else MODEL_FILE))


def history(out: Path) -> list[dict[str, Any]]:
    return without_clock(json.loads((out / HISTORY_FILE).read_text(), parse_constant=refuse))


def without_clock(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name not in ("seconds", "peak_memory_gib")} for entry in entries]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def assert_same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert not different, different


def state_without_clock(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_manifest(folder, "checkpoint")["state"]
    state["history"] = without_clock(state["history"])
    return {name: value for name, value in state.items() if name != "seconds"}


class Toy:
    """Learns nothing of interest."""

    weights = MappingProxyType({"toy": 1.0})

    def __init__(self, data: Dataset):
        self.codes = ItemCodes.make(data.train_count_I, {}, torch.device("cpu"))

    def draw(self, batch: Batch, generator: torch.Generator) -> Drawn:
        return Drawn(self.codes.all())

    def counts(self, batch: Batch) -> Tensor:
        return torch.ones(1)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return ((found, part) for part in batch.split(sizes))

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        history = batch.ids["history"]
        time_M = torch.zeros(len(history.value_N) + len(history.length_B), dtype=torch.int64)
        return Outcome(self.loss(model(history, found["item"], time_M), found["item"])[None], {})

    def loss(self, hidden_MD: Tensor, item_CD: Tensor) -> Tensor:
        return hidden_MD.square().mean() + item_CD.square().mean()


def toy_job(data: Dataset, validate: Callable[[dict[str, Tensor]], dict[str, float]], learner: Toy | None = None) -> Job:
    """A job of a small retriever, whose validation is the test's."""
    return Job(
        name="toy",
        build=lambda: Retriever(SASRec(dim=4, blocks=1, heads=1), ItemTower(), data.num_items, {}, 5),
        learner=learner or Toy(data),
        balance=Fixed().build({"toy": 1.0}),
        loader=SequenceLoader(data, 4, 64, seed=1),
        validate=validate,
        main_metric="m",
    )


def run_toy(job: Job, out: Path, device: torch.device, **settings: Any) -> dict[str, Any]:
    return fit(
        job, Fit(warmup_steps=0, **settings), seed=1, device=device, out=out, identity={"part": "toy"}, progress=Recorder()
    )


def without_dropout(config: RunConfig) -> RunConfig:
    retriever = config.retriever.model_copy(update={"encoder": config.retriever.encoder.model_copy(update={"dropout": 0.0})})
    return config.model_copy(update={"retriever": retriever, "ranker": config.ranker.model_copy(update={"dropout": 0.0})})


def environment() -> dict[str, str]:
    """Of a training in a process of its own."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
