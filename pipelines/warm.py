"""A warm day: how the config's `continual` section changes the training of a part that begins from an earlier run's."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines import models
from pipelines.workspace import Workspace, read_state
from recsys.artefact import is_there
from recsys.config import RunConfig
from recsys.continual.average import averaged
from recsys.continual.replay import Replay, replay
from recsys.continual.rewarm import Rewarm, warm_fit
from recsys.continual.weight_align import weight_aligned
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.models.managed_collision import id_map, map_tables
from recsys.models.retriever import ITEM_TABLE
from recsys.train.distil_tasks import TaskDistillation
from recsys.train.distil_term import Distillation
from recsys.train.grow import with_unknown_rows
from recsys.train.job import Job
from recsys.train.term import Term

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Warm:
    """`start`: an earlier run; `old`: the dataset that its models were trained on."""

    config: RunConfig
    start: Workspace
    old: Dataset

    def selection(self, data: Dataset, part: str) -> Replay:
        """What of the data an epoch of the part is trained on. Raises InputError where that cannot be told."""
        validation_too = getattr(getattr(self.config, part), "validation_too", False)
        return replay(self.old, data, share=self.config.continual.replay, seed=self.config.seed, validation_too=validation_too)

    def fit(self, spec: Fit) -> Fit:
        return warm_fit(spec, self.config.continual.epochs)

    def job(self, job: Job, data: Dataset, spec: Fit) -> Job:
        """The same with the rates of a warm day, and with what is made of the parameters in its end."""
        settings = self.config.continual
        rates = Rewarm(high=settings.rewarm, low=min(spec.final_share, settings.rewarm), warmup=settings.warmup)
        return replace(job, rates=rates, finish=self._finish(job.name, data))

    def terms(self, data: Dataset, device: torch.device) -> tuple[Term, ...]:
        """Those that the section adds to the retriever's loss."""
        spec, part = self.config.continual.distil, self.config.retriever
        if spec is None:
            return ()
        state = read_state(self.start, "retriever", self.config).state
        teacher = models.retrieval_graph(self.config, data, state, score_dim=part.encoder.dim).to(device)
        old_C = torch.from_numpy(np.flatnonzero(self.old.train_count_I)).to(device)
        return (Distillation(spec, teacher, part.similarity, old_C),)

    def task_distillation(self, data: Dataset, device: torch.device) -> TaskDistillation | None:
        """What the section adds to the ranker's loss; None: nothing."""
        spec, config = self.config.continual.distil, self.config
        if spec is None:
            return None
        sizes = {"user": data.num_users, "item": data.num_items, **{f["name"]: f["size"] for f in data.features}}
        state = with_unknown_rows(read_state(self.start, "ranker", config).state, sizes)
        teacher = models.ranking_graph(config, data, state).to(device)
        is_class_T = torch.tensor([task not in config.regression for task in config.tasks], device=device)
        return TaskDistillation(spec, teacher, data.context, is_class_T)

    def _finish(self, part: str, data: Dataset) -> Callable[[State], State]:
        """Averaging, then aligning, as far as they are wished for."""
        settings, steps = self.config.continual, list[Callable[[State], State]]()
        if settings.average:
            before = read_state(self.start, part, self.config).state
            mapped = {found.table for table in map_tables(before) if (found := id_map(before, table)) is not None}
            steps.append(lambda now: averaged(now, before, settings.average, skip=mapped))  # whose rows are other ids' by now
        if settings.weight_align and part == "retriever":
            old_I = np.pad(self.old.train_count_I, (0, data.num_items - self.old.num_items)) > 0
            count_I = torch.tensor(data.train_count_I)
            old, new = torch.from_numpy(old_I), torch.from_numpy(~old_I) & (count_I > 0)
            steps.append(lambda now: now | {ITEM_TABLE: weight_aligned(now[ITEM_TABLE], old, new, count_I)})
        return lambda state: functools.reduce(lambda now, step: step(now), steps, state)

    @property
    def identity(self) -> dict[str, Any]:
        """What the result depends on beside the parameters that it begins from."""
        settings = self.config.continual.model_dump(mode="json", exclude={"full_every_days", "full_on_drift"})
        return {"continual": settings | {"old_data": self.old.manifest["data_fingerprint"]}}


def warm(config: RunConfig, start: Workspace) -> Warm:
    """Raises InputError where the dataset of the earlier run is gone."""
    if not is_there(start.dataset):
        raise InputError(f"{start.dataset} is not there, so that it cannot be told what is new since: train from scratch")
    return Warm(config, start, Dataset(start.dataset))
