"""The stages as functions: each one an arrow from artefacts to an artefact, tracked in MLflow. The commands only call these."""

import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.workspace import Workspace, check_past, open_dataset, parts, read_state
from recsys.config import RunConfig
from recsys.errors import InputError

if TYPE_CHECKING:
    from pipelines.evaluate import HeldOut
    from pipelines.prepare import Prepared
    from recsys.data.engines import Engine

MISSING = {
    "ranker": "data.events.labels names no label of 0 and 1",
    "policy": "it has no `policy` section, such as {objective: {kind: rere}}",
    "generator": "it has no `generator` section",
}


def is_first_process() -> bool:
    """Whether this process is the one that shows and tracks: rank 0 under torchrun, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def prepare(
    config: RunConfig, raw: Path, workspace: Workspace, *,
    engine: "Engine | None" = None, anew: bool = False, console: Console | None = None,
) -> "Prepared":  # fmt: skip
    """Raw logs -> dataset and its report. Where new files can be appended to the dataset, they are, unless `anew`. Rows of
    users who were forgotten here are passed over."""
    from pipelines.daily.layout import Layout
    from pipelines.origin import remember_raw
    from pipelines.prepare import prepare_run
    from pipelines.progress import BuildProgress
    from recsys.data import engines

    with BuildProgress(console) as progress:
        found = prepare_run(
            config.data, raw, workspace, engine=engine or engines.engine(), progress=progress, anew=anew,
            without=Layout(workspace.root).forgotten_users(),
        )  # fmt: skip
    remember_raw(workspace, raw)
    return found


def train(
    config: RunConfig, workspace: Workspace, *, only: str | None, console: Console | None, uri: str | None,
    profile: bool = False, start: Workspace | None = None, continual: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Dataset -> checkpoints; returns their manifests by part. Under torchrun only the first process shows and tracks.

    `profile` writes a trace of some steps beside each checkpoint. `start` holds models to begin from, of this config and of a
    dataset whose vocabularies have grown since. With `continual` they are trained on what is new since and a replay of the
    rest, as the config's `continual` section says; a policy begins from its parent as ever.
    """
    from pipelines import tracking
    from pipelines.origin import ORIGIN_FILE, origin
    from pipelines.policy import train_policy
    from pipelines.progress import TrainingProgress
    from pipelines.train import train_generator, train_ranker, train_retriever
    from pipelines.warm import warm
    from recsys.train.distributed import has_fast_half, process_group

    data = open_dataset(workspace, config)
    chosen = parts(config) if only is None else [only]
    if only is not None and only not in parts(config):
        raise InputError(f"--only {only}: this config trains {parts(config)}; {MISSING[only]}")
    if start is not None:
        check_past(start, data)
        ids = config.generator.ids if config.generator is not None else None
        if ids is not None and ids.reads_retriever and {"retriever", "generator"} <= set(chosen):
            raise InputError(
                f"generator.ids.vectors {ids.vectors.kind} gives other ids after each training of the retriever, which an "
                "earlier decoder has not learned: train without --from, or take content vectors"
            )
    assert start is not None or not continual, "what is new can be told beside an earlier run alone"
    day = warm(config, start) if start is not None and continual else None
    trainers: dict[str, Callable[..., dict[str, Any]]] = {
        "retriever": partial(train_retriever, warm=day), "generator": partial(train_generator, workspace=workspace, warm=day),
        "policy": partial(train_policy, workspace=workspace), "ranker": partial(train_ranker, warm=day),
    }  # fmt: skip
    with process_group() as device, ExitStack() as stack:
        run = stack.enter_context(tracking.begin(config, data, workspace, uri)) if is_first_process() else None
        if run is not None:
            run.document(origin(workspace, data.manifest, chosen, start), ORIGIN_FILE)
        for part in chosen:
            in_half = getattr(config, part).fit.precision != "float32"
            if console is not None and in_half and not has_fast_half(device):
                console.print(f"  {part}: this CPU has no bfloat16 products: {part}.fit.precision=float32 will be faster")
        progress = stack.enter_context(TrainingProgress(console, run))
        manifests = {}
        for part in chosen:
            if part == "generator":
                _ids(config, workspace, console, run, start)
            with tracking.stage(run, part) if run is not None else nullcontext() as child:
                progress.curves = child
                manifests[part] = trainers[part](
                    config, data, workspace.checkpoint(part), device=device, progress=progress,
                    profile=workspace.trace(part) if profile and is_first_process() else None,
                    start=(
                        None if start is None or part == "policy" else read_state(start, part, config, optimizer=continual)
                    ),  # a policy begins from its parent
                )  # fmt: skip
                if run is not None:
                    tracking.log_part(run, workspace.checkpoint(part), manifests[part], part)
        if run is not None:
            tracking.log_costs(run, workspace, manifests, progress.speed)
    return manifests


def _ids(config: RunConfig, workspace: Workspace, console: Console | None, run: Any, start: Workspace | None) -> None:
    """The semantic ids that a generator writes, made by the first process where they are not there yet. A generator of `start`
    goes on with the ids that it knows."""
    import torch.distributed as dist

    from pipelines import tracking
    from pipelines.ids_command import show_ids
    from pipelines.semantic_ids import build_ids, check_past_ids, log_ids, take_ids

    if is_first_process():
        with tracking.stage(run, "semantic_ids") if run is not None else nullcontext():
            if start is not None:
                take_ids(start, workspace)
            manifest = build_ids(config, open_dataset(workspace, config), workspace)
            if start is not None:
                check_past_ids(start, workspace)
        if console is not None:
            show_ids(console, manifest)
        if run is not None:
            log_ids(run, manifest)
    dist.barrier()


def evaluate(
    config: RunConfig, workspace: Workspace, *, uri: str | None, held_out: "HeldOut | None" = None
) -> dict[str, Any]:  # fmt: skip
    """Checkpoints -> metrics on the test split. `held_out`: of this config and dataset, where it is known already."""
    from pipelines import tracking
    from pipelines.evaluate import evaluate_run

    data = open_dataset(workspace, config)
    with tracking.later_stage(workspace, "evaluate", uri) as run:
        result = evaluate_run(config, data, workspace, held_out=held_out)
        if run is not None:
            tracking.log_evaluation(run, config, workspace, result)
    return result


def export(config: RunConfig, workspace: Workspace, *, uri: str | None) -> dict[str, Any]:
    """Checkpoints -> bundle, registered as the model's candidate."""
    from pipelines import tracking
    from pipelines.export import export_run
    from recsys.train.distributed import process_group

    data = open_dataset(workspace, config)
    with tracking.later_stage(workspace, "export", uri) as run:
        with process_group() as device:
            manifest = export_run(config, data, workspace, device=device)
        if run is not None:
            manifest["version"] = tracking.log_bundle(run, config, workspace, manifest)
    return manifest
