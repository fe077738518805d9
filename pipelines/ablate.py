"""Variants of a config trained with the same data and seeds: every run tracked, kept, and not trained again."""

import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from rich.console import Console
from rich.markup import escape

from pipelines.ablation_values import judge_ranker, judge_retriever
from pipelines.evaluate import protocol, protocol_line
from pipelines.progress import TrainingProgress
from pipelines.train import train_ranker, train_retriever
from pipelines.variants import BASE, Plan
from pipelines.workspace import Workspace, identity, open_dataset, parts
from recsys import track
from recsys.artefact import fingerprint, is_there, read_manifest, write_artefact
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.distributed import process_group
from recsys.train.job import Progress

EXPERIMENT = "recsys-ablation"
VALUES_FILE = "values.parquet"
WARM_UP_STEPS = 5  # the first steps, at most half of them, fill caches and are not counted
WAITING = ("seconds/data", "seconds/report")  # parts of a step that are not training
JUDGES = {"retriever": judge_retriever, "ranker": judge_ranker}
TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {"retriever": train_retriever, "ranker": train_ranker}


class Trained(NamedTuple):
    """A model on the test split: a row per user and slice (retriever) or per example (ranker), and what it took."""

    values: pl.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True)
class Runs:
    """By variant, one `Trained` for each seed; and what a variant was refused for."""

    trained: dict[str, list[Trained]]
    refused: dict[str, str]


def ablate(
    config: RunConfig, workspace: Workspace, plan: Plan, *, seeds: int, console: Console | None, uri: str | None,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """Train base and variants with `seeds` seeds from the config's own on; return the result and the folder that has it."""
    from pipelines.ablation_report import result, write

    if seeds < 1:
        raise InputError(f"--seeds {seeds} trains nothing: say at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("recsys ablate trains one model at a time in one process: start it without torchrun")
    if plan.stage not in parts(config):
        raise InputError(
            f"--stage {plan.stage}: this config trains {parts(config)}; data.events.labels names no label of 0 and 1"
        )
    data = open_dataset(workspace, config)
    root = workspace.root / "ablation"
    used = list(range(config.seed, config.seed + seeds))
    with process_group() as device:
        runs = run_variants(
            plan.variants, data, used, stage=plan.stage, device=device, console=console, uri=uri, title=plan.title,
            folder=lambda name: root / name if name == BASE else root / plan.title / name,
        )  # fmt: skip
    found = result(plan, runs, used, config, data.manifest["data_fingerprint"])
    return found, write(found, root / plan.title, config=config, uri=uri)


def run_variants(
    variants: Mapping[str, RunConfig], data: Dataset, seeds: Sequence[int], *, stage: str, folder: Callable[[str], Path],
    device: torch.device, console: Console | None = None, uri: str | None = None, title: str = "variants",
    experiment: str | None = EXPERIMENT,
) -> Runs:  # fmt: skip
    """Train `stage` of every config with every seed and judge it on the test split.

    A model lies in `folder(name)/seed-N`; one that is there already, of the same config, seed and data, is not trained again,
    and training that was stopped goes on. Every training is a run of `experiment`; without one nothing is tracked. A variant
    that training refuses, for what the data lacks or since its loss is not finite, is left out with the reason; the base, which
    is the first, must not be. Seeds go round the variants, so that a machine that slows down slows all of them.
    """
    trained: dict[str, list[Trained]] = {name: [] for name in variants}
    refused: dict[str, str] = {}
    total, number = len(variants) * len(seeds), 0
    for seed in seeds:
        for place, (name, variant) in enumerate(variants.items()):
            number += 1
            if name in refused:
                continue
            if console is not None:
                console.print(f"run {number} of {total}: {escape(name)}, seed {seed}", highlight=False)
            chosen = variant.model_copy(update={"seed": seed})
            run = _Run(stage, name, title, chosen, data, folder(name) / f"seed-{seed}", device)
            try:
                trained[name].append(run.finished() or run.train(console, uri, experiment))
            except InputError as error:
                if not place:
                    raise
                refused[name] = str(error)
                if console is not None:
                    console.print(f"  [yellow]left out:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    kept = {name: each for name, each in trained.items() if name not in refused}
    if len(kept) < 2:
        raise InputError(f"no variant could be trained: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
    return Runs(kept, refused)


@dataclass(frozen=True)
class _Run:
    stage: str
    name: str
    title: str
    config: RunConfig
    data: Dataset
    folder: Path
    device: torch.device

    @property
    def checkpoint(self) -> Path:
        return self.folder / self.stage

    @property
    def values(self) -> Path:
        return self.folder / f"{self.stage}-values"

    def finished(self) -> Trained | None:
        """What an earlier run of this very config, seed and data has kept."""
        if self._model() is None or not is_there(self.values):
            return None
        manifest = read_manifest(self.values, "values")
        if manifest["inputs"] != {self.stage: self._model()} or manifest["protocol"] != protocol(self.config):
            return None
        return Trained(pl.read_parquet(self.values / VALUES_FILE), manifest["facts"])

    def train(self, console: Console | None, uri: str | None, experiment: str | None) -> Trained:
        with self._tracked(experiment, uri) as run, TrainingProgress(console, run) as shown:
            clock = _Clock(shown)
            if self._model() is None:  # else killed while it was judged
                TRAINERS[self.stage](self.config, self.data, self.checkpoint, device=self.device, progress=clock)
            manifest = read_manifest(self.checkpoint, "checkpoint")
            values, found = JUDGES[self.stage](self.config, self.data, self.checkpoint, self.device)
            facts = {name: manifest[name] for name in ("best", "epochs", "steps", "seconds", "peak_memory_gib")}
            facts |= {
                "step_ms": clock.step_ms(),
                "test": {name: value for name, value in found.items() if math.isfinite(value)},
            }
            with write_artefact(
                self.values, "values", inputs={self.stage: manifest["fingerprint"]}, protocol=protocol(self.config), facts=facts
            ) as (folder, _):  # fmt: skip
                values.write_parquet(folder / VALUES_FILE)
            if run is not None:
                run.metrics({f"test/{name}": value for name, value in facts["test"].items()})
                run.metrics({name: facts[name] for name in ("step_ms", "seconds") if facts[name] is not None})
                run.tag(track.PROTOCOL, protocol_line(protocol(self.config)))
        return Trained(values, json.loads(json.dumps(facts)))

    def _model(self) -> str | None:
        """The fingerprint of the checkpoint where it is the one that training would make now."""
        if not is_there(self.checkpoint):
            return None
        manifest = read_manifest(self.checkpoint, "checkpoint")
        kept = manifest["identity"]
        fit = getattr(self.config, self.stage).fit.model_dump(mode="json")
        wanted = {
            **identity(self.config, self.data, self.stage), "seed": self.config.seed, "start": None,
            "fit": {name: fit.get(name) for name in kept["fit"]},
        }  # fmt: skip
        return str(manifest["fingerprint"]) if fingerprint(kept) == fingerprint(wanted) else None

    @contextmanager
    def _tracked(self, experiment: str | None, uri: str | None) -> Iterator[track.Run | None]:
        if experiment is None:
            yield None
            return
        seed, plain = str(self.config.seed), self.config.model_dump(mode="json")
        tags = {"config": self.config.name, "ablation": self.title, "stage": self.stage, "variant": self.name, "seed": seed}
        name = f"{self.config.name} {self.stage} {self.name} seed-{seed}"
        with track.start_run(
            experiment, name, data=self.data.manifest["data_fingerprint"], uri=uri, params=plain, tags=tags
        ) as run:  # fmt: skip
            yield run


class _Clock:
    """Passes reports of the training loop on and keeps how long its steps took, without waiting for data and validation."""

    def __init__(self, shown: Progress):
        self.shown = shown
        self.seconds: list[float] = []

    def step(self, job: str, *, step: int, total_steps: int, predictions: int, metrics: dict[str, float]) -> None:
        laps = (value for name, value in metrics.items() if name.startswith("seconds/") and name not in WAITING)
        self.seconds.append(sum(laps))
        self.shown.step(job, step=step, total_steps=total_steps, predictions=predictions, metrics=metrics)

    def validated(self, job: str, *, step: int, epoch: int, metrics: dict[str, float], best: bool) -> None:
        self.shown.validated(job, step=step, epoch=epoch, metrics=metrics, best=best)

    def step_ms(self) -> float | None:
        """The median; None where no step ran in this process."""
        counted = self.seconds[min(WARM_UP_STEPS, len(self.seconds) // 2) :]
        return 1000 * statistics.median(counted) if counted else None
