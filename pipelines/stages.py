"""The stages as functions: each one an arrow from artefacts to an artefact, tracked in MLflow. The commands only call these."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from pipelines.workspace import Workspace, check_past, open_dataset, parts, read_state
from recsys.config import RunConfig
from recsys.errors import InputError

if TYPE_CHECKING:
    from pipelines.prepare import Prepared
    from recsys.data.engines import Engine

EXPERIMENT = "recsys"
CANDIDATE = "candidate"
CURVES = ("NDCG", "HR", "AUC", "reward", "kl_to_parent")  # of validation, as a picture of training
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
    """Raw logs -> dataset and its report. Where new files can be appended to the dataset, they are, unless `anew`."""
    from pipelines.prepare import prepare_run
    from pipelines.progress import BuildProgress
    from recsys.data import engines

    with BuildProgress(console) as progress:
        return prepare_run(config.data, raw, workspace, engine=engine or engines.engine(), progress=progress, anew=anew)


def train(
    config: RunConfig, workspace: Workspace, *, only: str | None, console: Console | None, uri: str | None,
    profile: bool = False, start: Workspace | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Dataset -> checkpoints; returns their manifests by part. Under torchrun only the first process shows and tracks.

    `profile` writes a trace of some steps beside each checkpoint. `start` holds models to begin from, of this config and of a
    dataset whose vocabularies have grown since.
    """
    from pipelines.data_report import PAGE_FILE, QUALITY_FILE, refresh
    from pipelines.policy import train_policy
    from pipelines.progress import TrainingProgress
    from pipelines.train import train_generator, train_ranker, train_retriever
    from recsys import track
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
    trainers: dict[str, Callable[..., dict[str, Any]]] = {
        "retriever": train_retriever, "generator": partial(train_generator, workspace=workspace),
        "policy": partial(train_policy, workspace=workspace), "ranker": train_ranker,
    }  # fmt: skip
    with process_group() as device, ExitStack() as stack:
        run = None
        if is_first_process():
            run = stack.enter_context(
                track.start_run(
                    EXPERIMENT, config.name, data=data.manifest["data_fingerprint"], uri=uri,
                    params=config.model_dump(mode="json"), tags={"config": config.name},
                )
            )  # fmt: skip
            workspace.remember_run(run.run_id)
            run.document(config.model_dump(mode="json"), "config.yaml")
            run.document(data.manifest["report"], "data_report.json")
            refresh(workspace, data.manifest)
            for name in (QUALITY_FILE, PAGE_FILE):
                run.artefact(workspace.data_report / name, "data")
        for part in chosen:
            in_half = getattr(config, part).fit.precision != "float32"
            if console is not None and in_half and not has_fast_half(device):
                console.print(f"  {part}: this CPU has no bfloat16 products: {part}.fit.precision=float32 will be faster")
        progress = stack.enter_context(TrainingProgress(console, run))
        manifests = {}
        for part in chosen:
            if part == "generator":
                _ids(config, workspace, console, run, start)
            manifests[part] = trainers[part](
                config, data, workspace.checkpoint(part), device=device, progress=progress,
                profile=workspace.trace(part) if profile and is_first_process() else None,
                start=read_state(start, part, config) if start and part != "policy" else None,  # which begins from its parent
            )  # fmt: skip
            if run is not None:
                _log_curves(run, workspace.checkpoint(part), part)
                if "guard" in manifests[part]:
                    run.tag(f"{part}/kept", f"{manifests[part]['guard']['kept']}: {manifests[part]['guard']['why']}")
    return manifests


def _ids(config: RunConfig, workspace: Workspace, console: Console | None, run: Any, start: Workspace | None) -> None:
    """The semantic ids that a generator writes, made by the first process where they are not there yet. A generator of `start`
    goes on with the ids that it knows."""
    import torch.distributed as dist

    from pipelines.ids_command import show_ids
    from pipelines.semantic_ids import build_ids, check_past_ids, log_ids, take_ids

    if is_first_process():
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


def evaluate(config: RunConfig, workspace: Workspace, *, uri: str | None) -> dict[str, Any]:
    """Checkpoints -> metrics on the test split."""
    from pipelines.evaluate import METRICS_FILE, PER_USER_FILE, evaluate_run, flat_metrics, protocol_line
    from recsys import plots, track

    result = evaluate_run(config, open_dataset(workspace, config), workspace)
    if workspace.run_id is not None:
        with track.resume_run(workspace.run_id, uri=uri) as run:
            run.metrics(flat_metrics(result))
            run.tag(track.PROTOCOL, protocol_line(result["protocol"]))
            run.artefact(workspace.metrics / PER_USER_FILE, "metrics")
            run.artefact(workspace.metrics / METRICS_FILE, "metrics")
            run.figure(plots.metric_bars(*_bars(result)), "plots/floor.png")
    return result


def export(config: RunConfig, workspace: Workspace, *, uri: str | None) -> dict[str, Any]:
    """Checkpoints -> bundle, registered as the model's candidate."""
    from pipelines.export import export_run
    from recsys import track
    from recsys.train.distributed import process_group

    with process_group() as device:
        manifest = export_run(config, open_dataset(workspace, config), workspace, device=device)
    if workspace.run_id is not None:
        with track.resume_run(workspace.run_id, uri=uri) as run:
            run.metric("export/parity_max_error", max(manifest["parity_max_error"].values()))
            folder = f"bundle-{manifest['fingerprint']}"  # its own folder: a registered one is never written again
            run.artefact(workspace.bundle, folder)
        manifest["version"] = track.register(workspace.run_id, config.name, CANDIDATE, folder=folder, uri=uri)
    return manifest


def _log_curves(run: Any, checkpoint: Path, part: str) -> None:
    import json

    from recsys import plots
    from recsys.train.loop import HISTORY_FILE

    history = json.loads((checkpoint / HISTORY_FILE).read_text())
    drawn = [{name: value for name, value in entry.items() if _is_drawn(name) and value == value} for entry in history]
    run.figure(plots.curves(drawn, f"{part}: training loss and validation"), f"plots/{part}.png")


def _is_drawn(name: str) -> bool:
    return name in ("step", "loss") or name.removeprefix("valid/").split("@")[0].split("/")[0] in CURVES


def _bars(result: dict[str, Any]) -> tuple[dict[str, float], dict[str, dict[str, float]], str]:
    """HR, NDCG and MRR at the first K, of the model and of each floor."""
    retrieval = result["retrieval"]
    names = [name for name in retrieval["model"] if name.split("@")[0] in ("HR", "NDCG", "MRR")][:3]
    floors = {floor: {name: means[name] for name in names} for floor, means in retrieval["floor"].items()}
    return {name: retrieval["model"][name] for name in names}, floors, f"Test split, {retrieval['users']:,} users"
