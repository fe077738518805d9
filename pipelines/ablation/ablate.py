"""Variants of a config trained with the same data and seeds: every run tracked, kept, and not trained again."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from pipelines.ablation.run import Run, Tracking, Trained
from pipelines.ablation.variants import BASE, Plan
from pipelines.parents import IDS, Borrower, lenders, start_of
from pipelines.stages import MISSING
from pipelines.workspace import Workspace, open_dataset, parts
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.train.distributed import process_group

EXPERIMENT = "recsys-ablation"


@dataclass(frozen=True)
class Runs:
    """By variant, one `Trained` for each seed; and what a variant was refused for."""

    trained: dict[str, list[Trained]]
    refused: dict[str, str]


def ablate(
    config: RunConfig, workspace: Workspace, plan: Plan, *, seeds: int, console: Console | None, uri: str | None,
) -> tuple[dict[str, Any], Path]:  # fmt: skip
    """Train base and variants with `seeds` seeds from the config's own on; return the result and the folder that has it."""
    from pipelines.ablation.report import result, write

    if seeds < 1:
        raise InputError(f"--seeds {seeds} trains nothing: say at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("recsys ablate trains one model at a time in one process: start it without torchrun")
    if plan.stage not in parts(config):
        raise InputError(f"--stage {plan.stage}: this config trains {parts(config)}; {MISSING[plan.stage]}")
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
    and training that was stopped goes on. What the stage begins from is trained before it, once for each seed, and lies with
    the first variant that has the same. Every training is a run of `experiment`; without one nothing is tracked. A variant
    that training refuses, for what the data lacks or since its loss is not finite, is left out with the reason; the base, which
    is the first, must not be. Seeds go round the variants, so that a machine that slows down slows all of them.
    """
    bench = _Bench(variants, data, folder, device, Tracking(console, experiment, uri, title))
    trained: dict[str, list[Trained]] = {name: [] for name in variants}
    refused: dict[str, str] = {}
    total, number = len(variants) * len(seeds), 0
    for seed in seeds:
        for place, name in enumerate(variants):
            number += 1
            if name in refused:
                continue
            if console is not None:
                console.print(f"run {number} of {total}: {escape(name)}, seed {seed}", highlight=False)
            try:
                trained[name].append(bench.trained(stage, name, seed))
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
class _Bench:
    """What all trainings of an ablation have in common."""

    variants: Mapping[str, RunConfig]
    data: Dataset
    folder: Callable[[str], Path]
    device: torch.device
    tracking: Tracking

    def trained(self, stage: str, name: str, seed: int) -> Trained:
        """The stage of a variant and all that it begins from, trained where that is not yet there."""
        found: dict[str, Trained] = {}
        for part, owner in lenders(self.variants, name, stage).items():
            run = self._run(part, owner, seed)
            if part == IDS:
                run.make_ids(self.tracking)
            else:
                found[part] = run.finished() or self._first(run)
        run = self._run(stage, name, seed)
        values, facts = run.finished() or run.train(self.tracking)
        start = start_of(run.config, stage)
        return Trained(
            values, facts if start is None else facts | {"start": {"part": start, "test": found[start].facts["test"]}}
        )

    def _run(self, part: str, name: str, seed: int) -> Run:
        owners = lenders(self.variants, name, part)
        places = {each: self.folder(owner) / f"seed-{seed}" for each, owner in owners.items()}
        chosen = self.variants[name].model_copy(update={"seed": seed})
        return Run(part, name, chosen, self.data, Borrower(self.folder(name) / f"seed-{seed}", places), self.device)

    def _first(self, run: Run) -> Trained:
        if self.tracking.console is not None:
            self.tracking.console.print(f"  first the {run.stage} of {escape(run.variant)}", highlight=False)
        return run.train(self.tracking)
