"""One part of one variant with one seed: trained once, tracked, judged on the test split, and kept with its values."""

import json
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from rich.console import Console

from pipelines.ablation.values import judge
from pipelines.parents import IDS, Borrower, begins_from, trained_as
from pipelines.policy import train_policy
from pipelines.progress import TrainingProgress
from pipelines.semantic_ids import build_ids, log_ids
from pipelines.train import train_generator, train_ranker, train_retriever
from recsys import track
from recsys.artefact import fingerprint, is_there, read_manifest, write_artefact
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.protocol import Protocol
from recsys.train.job import Progress

VALUES_FILE = "values.parquet"
WARM_UP_STEPS = 5  # the first steps, at most half of them, fill caches and are not counted
WAITING = ("seconds/data", "seconds/report")  # parts of a step that are not training
TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {
    "retriever": train_retriever, "generator": train_generator, "policy": train_policy, "ranker": train_ranker
}  # fmt: skip


class Trained(NamedTuple):
    """A model on the test split: a row per user and slice, or of a ranker per example, and what it took."""

    values: pl.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True)
class Tracking:
    """Where trainings are shown and tracked; without an experiment they are not tracked."""

    console: Console | None
    experiment: str | None
    uri: str | None
    title: str


@dataclass(frozen=True)
class Run:
    """`config` is the variant's with this seed, `workspace` has what the part begins from."""

    stage: str
    variant: str
    config: RunConfig
    data: Dataset
    workspace: Borrower
    device: torch.device

    @property
    def checkpoint(self) -> Path:
        return self.workspace.root / self.stage

    @property
    def values(self) -> Path:
        return self.workspace.root / f"{self.stage}-values"

    def finished(self) -> Trained | None:
        """What an earlier run of this very config, seed, data and beginning has kept."""
        if self._model() is None or not is_there(self.values):
            return None
        manifest = read_manifest(self.values, "values")
        if manifest["inputs"] != {self.stage: self._model()} or manifest["protocol"] != Protocol.of(self.config).document():
            return None
        return Trained(pl.read_parquet(self.values / VALUES_FILE), manifest["facts"])

    def train(self, tracking: Tracking) -> Trained:
        with self._tracked(tracking) as run, TrainingProgress(tracking.console, run) as shown:
            clock = _Clock(shown)
            if self._model() is None:  # else killed while it was judged
                more = {"workspace": self.workspace} if begins_from(self.config, self.stage) else {}
                TRAINERS[self.stage](self.config, self.data, self.checkpoint, device=self.device, progress=clock, **more)
            manifest = read_manifest(self.checkpoint, "checkpoint")
            values, found = judge(self.config, self.data, self.workspace, self.stage, self.device)
            facts = {name: manifest[name] for name in ("best", "epochs", "steps", "seconds", "peak_memory_gib")}
            facts |= {"guard": manifest["guard"]} if "guard" in manifest else {}
            facts |= {
                "step_ms": clock.step_ms(),
                "test": {name: value for name, value in found.items() if math.isfinite(value)},
            }
            with write_artefact(
                self.values, "values", inputs={self.stage: manifest["fingerprint"]}, facts=facts,
                protocol=Protocol.of(self.config).document(),
            ) as (folder, _):  # fmt: skip
                values.write_parquet(folder / VALUES_FILE)
            if run is not None:
                self._log(run, facts)
        return Trained(values, json.loads(json.dumps(facts)))

    def make_ids(self, tracking: Tracking) -> None:
        """The semantic ids, where there are none of these settings, data and seed, and of the retriever that they read."""
        assert self.config.generator is not None
        wanted, folder = self.config.generator.ids, self.workspace.semantic_ids
        as_now = {
            "config": wanted.model_dump(mode="json"), "seed": self.config.seed,
            "fitted_to": self.data.manifest["data_fingerprint"], "retriever": None,
        }  # fmt: skip
        if wanted.reads_retriever:
            as_now["retriever"] = read_manifest(self.workspace.checkpoint("retriever"), "checkpoint")["fingerprint"]
        if is_there(folder):
            manifest = read_manifest(folder, IDS)
            if {name: manifest[name] for name in as_now} == as_now:
                return
        with self._tracked(tracking) as run:
            manifest = build_ids(self.config, self.data, self.workspace, anew=True)
            if tracking.console is not None:
                sizes = " x ".join(map(str, manifest["sizes"]))
                tracking.console.print(f"  {sizes} codes in {folder}", highlight=False, soft_wrap=True)
            if run is not None:
                log_ids(run, manifest)

    def _log(self, run: track.Run, facts: dict[str, Any]) -> None:
        run.metrics({f"test/{name}": value for name, value in facts["test"].items()})
        run.metrics({name: facts[name] for name in ("step_ms", "seconds") if facts[name] is not None})
        run.tag(track.PROTOCOL, Protocol.of(self.config).line)
        if "guard" in facts:
            run.tag(f"{self.stage}/kept", f"{facts['guard']['kept']}: {facts['guard']['why']}")

    def _model(self) -> str | None:
        """The fingerprint of the checkpoint where it is the one that training would make now."""
        if not is_there(self.checkpoint):
            return None
        manifest = read_manifest(self.checkpoint, "checkpoint")
        kept = manifest["identity"]
        fit = getattr(self.config, self.stage).fit.model_dump(mode="json")
        wanted = {
            **trained_as(self.config, self.data, self.stage, self.workspace),
            "fit": {name: fit.get(name) for name in kept["fit"]},
        }
        return str(manifest["fingerprint"]) if fingerprint(kept) == fingerprint(wanted) else None

    @contextmanager
    def _tracked(self, tracking: Tracking) -> Iterator[track.Run | None]:
        if tracking.experiment is None:
            yield None
            return
        seed, plain = str(self.config.seed), self.config.model_dump(mode="json")
        tags = {
            "config": self.config.name, "ablation": tracking.title, "stage": self.stage, "variant": self.variant, "seed": seed
        }  # fmt: skip
        name = f"{self.config.name} {self.stage} {self.variant} seed-{seed}"
        with track.start_run(
            tracking.experiment, name, data=self.data.manifest["data_fingerprint"], uri=tracking.uri, params=plain, tags=tags
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
