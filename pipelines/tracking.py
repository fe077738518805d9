"""How a pipeline run looks in MLflow: a parent that runs are compared by, and below it a run for each stage.

The parent has what is compared (test/, floor/, slice/, export/, cost/), the description, config, lock, data and bundle; a stage
has its curves and what the machine did meanwhile.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys import track
from recsys.artefact import is_there
from recsys.track.facts import lock_text
from recsys.track.monitor import SystemMonitor

if TYPE_CHECKING:
    from pipelines.workspace import Workspace
    from recsys.config import RunConfig
    from recsys.dataset import Dataset

EXPERIMENT = "recsys"
CANDIDATE = "candidate"
CURVES = ("NDCG", "HR", "AUC", "reward", "kl_to_parent")  # of validation, as a picture of training


def begin(config: "RunConfig", data: "Dataset", workspace: "Workspace", uri: str | None) -> track.Run:
    """The parent of a pipeline run, with what is known before training; later stages find it by the workspace."""
    from pipelines.data_report import PAGE_FILE, QUALITY_FILE, refresh

    settings, report = config.model_dump(mode="json"), data.manifest["report"]
    name = f"{config.name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    run = track.start_run(
        EXPERIMENT, name, data=data.manifest["data_fingerprint"], uri=uri, params=settings, tags={"config": config.name}
    )
    workspace.remember_run(run.run_id)
    run.document(settings, "config.yaml")
    run.text(lock_text(), "environment/requirements.lock")
    run.document(report, "data_report.json")
    schema = {"tasks": data.tasks, "context": data.context, "features": data.features, "dense": data.dense}
    profile = {key: report[key] for key in ("rows_read", "rows_kept", "timeline_events", "examples", "users", "items")}
    fingerprint = data.manifest["data_fingerprint"]
    run.dataset(
        config.name, fingerprint, str(data.folder.absolute()), schema={"mlflow_colspec": _columns(schema)}, profile=profile
    )
    run.note(_note(config, workspace, run.run_id, profile, None))
    with run.child("prepare", "prepare") as child:
        child.metrics({f"data/{key}": value for key, value in report.items() if isinstance(value, (int, float))})
        child.document(report, "data_report.json")
        refresh(workspace, data.manifest)
        for file in (QUALITY_FILE, PAGE_FILE):
            run.artefact(workspace.data_report / file, "data")
    return run


@contextmanager
def stage(run: track.Run, name: str) -> Iterator[track.Run]:
    """A run of a stage below the parent, with what the machine does meanwhile."""
    with run.child(name.replace("_", " "), name) as child, SystemMonitor(child):
        yield child


@contextmanager
def later_stage(workspace: "Workspace", name: str, uri: str | None) -> Iterator[track.Run | None]:
    """The parent that `train` opened, open again for a stage; None where there is none."""
    if workspace.run_id is None:
        yield None
        return
    with track.resume_run(workspace.run_id, uri=uri) as run, stage(run, name):
        yield run


def log_part(run: track.Run, checkpoint: Path, manifest: Mapping[str, Any], part: str) -> None:
    """What a part's training has left: its curves, and which model was kept."""
    from recsys import plots
    from recsys.train.loop import HISTORY_FILE

    history = json.loads((checkpoint / HISTORY_FILE).read_text())
    drawn = [{name: value for name, value in entry.items() if _is_drawn(name) and value == value} for entry in history]
    run.figure(plots.curves(drawn, f"{part}: training loss and validation"), f"plots/{part}.png")
    if "guard" in manifest:
        run.tag(f"{part}/kept", f"{manifest['guard']['kept']}: {manifest['guard']['why']}")


def log_costs(
    run: track.Run, workspace: "Workspace", manifests: Mapping[str, Mapping[str, Any]], speed: Mapping[str, float]
) -> None:
    """Time, memory, size and speed (examples per second) of what was trained."""
    from recsys.train.loop import MODEL_FILE

    costs = {f"cost/train_s/{part}": float(manifest["seconds"]) for part, manifest in manifests.items()}
    costs |= {f"cost/examples_per_s/{part}": value for part, value in speed.items()}
    sizes = {part: parameters(workspace.checkpoint(part) / MODEL_FILE) for part in manifests}
    costs |= {f"cost/parameters/{part}": float(size) for part, size in sizes.items()}
    run.metrics(costs)
    run.metric("cost/train_s", sum(float(manifest["seconds"]) for manifest in manifests.values()))
    run.metric("cost/peak_memory_gib", max(float(manifest["peak_memory_gib"]) for manifest in manifests.values()))
    run.metric("cost/parameters", sum(sizes.values()))


def log_evaluation(run: track.Run, config: "RunConfig", workspace: "Workspace", result: Mapping[str, Any]) -> None:
    from pipelines.evaluate import flat_metrics
    from recsys import plots
    from recsys.artefact import MANIFEST
    from recsys.protocol import Protocol

    run.tag(track.PROTOCOL, Protocol.of(config).line)
    run.metrics_anew(flat_metrics(dict(result)), track.MEASURED)
    for path in sorted(workspace.metrics.iterdir()):
        if path.name != MANIFEST:
            run.artefact(path, "metrics")
    run.figure(plots.metric_bars(*_bars(result)), "plots/floor.png")
    run.note(_note(config, workspace, run.run_id, None, result))


def log_bundle(run: track.Run, config: "RunConfig", workspace: "Workspace", manifest: Mapping[str, Any]) -> int | None:
    """The bundle as an MLflow model, and what it costs to serve; its version, None where the store is away."""
    from pipelines.per_user import METRICS_FILE

    run.metric("export/parity_max_error", max(manifest["parity_max_error"].values()))
    run.metrics({f"export/{name}": value for name, value in manifest.get("measured", {}).items()})
    folder = f"bundle-{manifest['fingerprint']}"  # its own folder: a registered one is never written again
    run.artefact(workspace.bundle, folder)
    example = _some_user(workspace.bundle)
    for name, text in track.model_files(run.run_id, folder, example, max_k=manifest["model"]["num_candidates"]).items():
        run.text(text, f"{folder}/{name}")
    result = workspace.metrics / METRICS_FILE
    run.note(
        _note(config, workspace, run.run_id, None, json.loads(result.read_text()) if is_there(workspace.metrics) else None)
    )
    return run.register(config.name, CANDIDATE, folder=folder)


def parameters(file: Path) -> int:
    """Numbers in a safetensors file, by its header: 8 bytes that say its length, then JSON."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    total = 0
    for name, tensor in header.items():
        size = 1
        for width in tensor["shape"] if name != "__metadata__" else (0,):
            size *= width
        total += size
    return total


def _some_user(bundle: Path) -> str:
    """The first user of a bundle with events: what an example asks for."""
    import pyarrow as pa

    from recsys.columns import LENGTH, USER_ID, USERS_FILE

    users = pa.ipc.open_file(pa.memory_map(str(bundle / USERS_FILE))).read_all().select([USER_ID, LENGTH])
    there = users.filter(pa.compute.greater(users.column(LENGTH), 0))
    return str(there.column(USER_ID)[0].as_py())


def _columns(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dataset's columns as MLflow's page shows them."""
    labels = [{"name": task, "type": "double", "required": True} for task in schema["tasks"]]
    features = [{"name": each["name"], "type": "string", "required": False} for each in schema["features"]]
    dense = [{"name": name, "type": "double", "required": False} for name in schema["dense"]]
    ids = [{"name": name, "type": "string", "required": True} for name in ("user", "item")]
    return [*ids, *labels, *features, *dense]


def _note(
    config: "RunConfig", workspace: "Workspace", run_id: str, data: Mapping[str, Any] | None, result: Mapping[str, Any] | None
) -> str:
    """The description on MLflow's page."""
    from pipelines.workspace import open_dataset, parts
    from recsys.protocol import Protocol

    report = data or open_dataset(workspace, config).manifest["report"]
    lines = [
        f"**{config.name}**: {', '.join(parts(config))}, trained on {report['timeline_events']:,} events of "
        f"{report['users']:,} users and {report['items']:,} items.",
        "",
    ]
    if result is not None:
        model, floor, title = _bars(result)
        rows = [f"| {name} | {value:.4f} | {_best(floor, name)} |" for name, value in model.items()]
        lines += [
            f"{title}; protocol: {Protocol.of(config).line}",
            "",
            "| metric | model | best floor |",
            "|---|---|---|",
            *rows,
            "",
        ]
    if is_there(workspace.bundle):
        lines += [f"Bundle: `{workspace.bundle.absolute()}`, and among the artefacts.", ""]
    lines += ["```", f"recsys reproduce {run_id}", f"recsys compare {run_id}", "```"]
    return "\n".join(lines)


def _best(floor: Mapping[str, Mapping[str, float]], metric: str) -> str:
    if not floor:
        return "none"
    name = max(floor, key=lambda each: floor[each][metric])
    return f"{floor[name][metric]:.4f} ({name})"


def _is_drawn(name: str) -> bool:
    return name in ("step", "loss") or name.removeprefix("valid/").split("@")[0].split("/")[0] in CURVES


def _bars(result: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, dict[str, float]], str]:
    """HR, NDCG and MRR at the first K, of the model and of each floor."""
    retrieval = result["retrieval"]
    names = [name for name in retrieval["model"] if name.split("@")[0] in ("HR", "NDCG", "MRR")][:3]
    floors = {floor: {name: means[name] for name in names} for floor, means in retrieval["floor"].items()}
    return {name: retrieval["model"][name] for name in names}, floors, f"Test split, {retrieval['users']:,} users"
