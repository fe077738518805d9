"""A search for the settings of a stage: trials judged by validation, the best of them, in the end, by the test split."""

import os
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from pipelines.ablation.variants import NAME
from pipelines.parents import IDS, begins_from
from pipelines.stages import MISSING
from pipelines.sweeping.plan import Plan
from pipelines.sweeping.report import log_result, result, write
from pipelines.sweeping.search import Search
from pipelines.sweeping.study import WORKERS_FILE, Pruning, best_first, forget, only_one
from pipelines.sweeping.workers import train_here, train_in_processes
from pipelines.workspace import Workspace, check_lineage, open_dataset, parts
from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError


def sweep(
    config: RunConfig, workspace: Workspace, plan: Plan, *, console: Console | None, uri: str | None
) -> tuple[dict[str, Any], Path]:
    """Try up to `plan.trials` settings, those of earlier calls included; judge the best on the test split. Return the result
    and the folder that has it. Raises InputError where no trial, or none of the last few, could be trained."""
    from recsys.train.distributed import process_group

    _check(config, plan)
    data = open_dataset(workspace, config)
    lenders = _lenders(config, workspace, data, plan.space.stage)
    folder = workspace.root / "sweep" / plan.name
    with only_one(folder), process_group() as device:
        if plan.anew:
            forget(folder)
        search = Search.open(config, data, folder, plan, lenders, console, uri)
        with search.run, search.shown:
            if plan.workers == 1:
                train_here(search, data, device)
            else:
                train_in_processes(search, data.folder, workers=plan.workers, alive=folder / WORKERS_FILE)
            if not best_first(search.trials.study.get_trials()):
                raise InputError(f"none of the {plan.trials} trials could be trained; the first: {search.first_failure()}")
            found = result(config, data, plan, search.trials.study, search.judge(device), search.point)
            write(found, folder, plan)
            log_result(search.run, found, folder)
    return found, folder


def _check(config: RunConfig, plan: Plan) -> None:
    stage = plan.space.stage
    for option, value, least in (
        ("trials", plan.trials, 1), ("workers", plan.workers, 1), ("seeds", plan.seeds, 0), ("keep", plan.keep, 1),
    ):  # fmt: skip
        if value < least:
            raise InputError(f"--{option} {value} is too few: say at least {least}")
    if not NAME.fullmatch(plan.name):
        raise InputError(f"--name {plan.name!r} cannot be the name of a folder: take letters, digits, dots and dashes")
    if plan.pruning not in get_args(Pruning):
        raise InputError(f"--prune {plan.pruning!r} is unknown: choose {', '.join(get_args(Pruning))}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("recsys sweep starts its own processes, by --workers: start it without torchrun")
    if stage not in parts(config):
        raise InputError(f"--stage {stage}: this config trains {parts(config)}; {MISSING[stage]}")


def _lenders(config: RunConfig, workspace: Workspace, data: Dataset, stage: str) -> dict[str, Path]:
    """The artefacts of the workspace that the stage begins from, which have to be there and to be of this config."""
    for part in begins_from(config, stage):
        if part == IDS:
            read_manifest(workspace.semantic_ids, IDS)
        else:
            check_lineage(workspace, part, data, config)
    return dict.fromkeys(begins_from(config, stage), workspace.root)
