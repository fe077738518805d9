"""Where the artefacts of one run lie, and which MLflow run they belong to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.artefact import is_there, read_manifest
from recsys.errors import InputError

if TYPE_CHECKING:  # importing these takes seconds, which `recsys --help` need not spend
    from recsys.config import RunConfig
    from recsys.dataset import Dataset
    from recsys.train.job import Start

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Workspace:
    """A folder with one sub-folder per artefact."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def data_report(self) -> Path:
        return self.root / "data_report"

    @property
    def semantic_ids(self) -> Path:
        return self.root / "semantic_ids"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    def checkpoint(self, part: str) -> Path:
        """`part` is retriever, generator, policy or ranker."""
        return self.root / part

    def trace(self, part: str) -> Path:
        """Where the profile of a part's training goes."""
        return self.root / "profile" / f"{part}.json"

    @property
    def run_id(self) -> str | None:
        """The MLflow run that `train` opened, which later stages add to."""
        path = self.root / "mlflow.json"
        return str(json.loads(path.read_text())["run_id"]) if path.is_file() else None

    def remember_run(self, run_id: str) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        scratch = self.root / ".mlflow.json.tmp"
        scratch.write_text(json.dumps({"run_id": run_id}) + "\n")
        scratch.rename(self.root / "mlflow.json")


def parts(config: "RunConfig") -> list[str]:
    """What the config trains, in this order: a ranker only where there are tasks."""
    wanted = {
        "retriever": True, "generator": config.generator, "policy": config.policy, "ranker": config.tasks
    }  # fmt: skip
    return [part for part, there in wanted.items() if there]


def served_part(config: "RunConfig", part: str) -> str:
    """The part whose checkpoint stands for `part` when it is judged and served: the policy that began from it, if any."""
    return "policy" if config.policy is not None and config.policy.parent == part else part


def config_path(name: str) -> Path:
    """A shipped config by its name, or the path of a file. Raises InputError with the shipped names."""
    if (CONFIGS / f"{name}.yaml").is_file():
        return CONFIGS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    shipped = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    raise InputError(f"config {name!r} is neither a file nor a shipped config: choose one of {shipped}")


def open_dataset(workspace: Workspace, config: "RunConfig") -> "Dataset":
    """The dataset of the workspace, refused when another `data` section made it."""
    from recsys.dataset import Dataset

    data = Dataset(workspace.dataset)
    if data.manifest["config"] != config.data.model_dump(mode="json"):
        raise InputError(
            f"{workspace.dataset} was made with another `data` section than this config's: run `recsys prepare` again"
        )
    return data


def check_lineage(workspace: Workspace, part: str, data: "Dataset", config: "RunConfig") -> dict[str, Any]:
    """The manifest of a checkpoint that was trained on this very dataset, as a model of this config."""
    folder = workspace.checkpoint(part)
    manifest = read_manifest(folder, "checkpoint")
    trained, wanted = manifest["identity"], identity(config, data, part)
    if trained["data_fingerprint"] != wanted["data_fingerprint"]:
        raise InputError(f"{folder} was trained on another dataset than {data.folder}: run `recsys train` again")
    for name in ("model", "tasks", "max_history"):
        if trained[name] != wanted[name]:
            raise InputError(f"{folder} was trained with other settings ({name}) than this config's: run `recsys train` again")
    if part == "generator" and trained["ids"] != read_manifest(workspace.semantic_ids, "semantic_ids")["fingerprint"]:
        raise InputError(
            f"{folder} was trained with other ids than {workspace.semantic_ids}: run `recsys train --only generator` again"
        )
    if part == "generator" and trained.get("parent") is not None:
        _check_parent(workspace, part, "retriever", trained["parent"], data, config)
    if part == "policy" and config.policy is not None:
        _check_parent(workspace, part, config.policy.parent, trained["parent"], data, config)
    return manifest


def _check_parent(
    workspace: Workspace, part: str, parent: str, began_from: str, data: "Dataset", config: "RunConfig"
) -> None:  # fmt: skip
    if check_lineage(workspace, parent, data, config)["fingerprint"] != began_from:
        raise InputError(
            f"{workspace.checkpoint(part)} began from another {parent} than {workspace.checkpoint(parent)}: "
            f"run `recsys train --only {part}` again"
        )


def identity(config: "RunConfig", data: "Dataset", part: str, **more: Any) -> dict[str, Any]:
    """What a training result depends on: no run goes on from a checkpoint of another identity, nor is it judged as this one."""
    model = getattr(config, part).model_dump(mode="json", exclude={"fit"})
    if part == "generator":
        model |= {"encoder": config.generator_encoder.model_dump(), "tower": config.generator_tower.model_dump(mode="json")}
    if part == "ranker":
        del model["features"]
        model |= {"features": list(config.ranker_features)} if config.ranker_features else {}
    return {
        **more,
        "part": part,
        "data_fingerprint": data.manifest["data_fingerprint"],
        "evaluation": config.evaluation.model_dump(mode="json", exclude={"user_slices", "item_slices", "category"}),
        "max_history": config.max_history,
        "model": model,
        "tasks": config.tasks if part == "ranker" else {},
    }


def check_past(workspace: Workspace, data: "Dataset") -> None:
    """Refuse to begin from models whose dataset, where the workspace still has it, gave its ids in another order."""
    from recsys.dataset import Dataset

    if not is_there(workspace.dataset):
        return
    old = Dataset(workspace.dataset)
    for what, before, now in (("items", old.item_ids, data.item_ids), ("users", old.user_ids, data.user_ids)):
        if now[: len(before)] != before:
            raise InputError(
                f"{workspace.dataset} is no past of {data.folder}, its {what} have other numbers: "
                "begin from a run whose dataset grew into this one, or train anew"
            )


def read_state(workspace: Workspace, part: str, config: "RunConfig", *, optimizer: bool = False) -> "Start":
    """The parameters of a workspace's checkpoint. What does not fit the model is named when it is begun from. `optimizer`: with
    what the tables' optimizer keeps of each row, where the checkpoint has it."""
    from safetensors.torch import load_file

    from recsys.train.job import Start
    from recsys.train.loop import MODEL_FILE, OPTIMIZER_FILE

    folder = workspace.checkpoint(part)
    manifest = read_manifest(folder, "checkpoint")
    tasks = config.tasks if part == "ranker" else {}
    if list(manifest["identity"]["tasks"]) != list(tasks):
        raise InputError(f"{folder} was trained for other tasks than {list(tasks)}: begin from another checkpoint")
    kept = load_file(folder / OPTIMIZER_FILE) if optimizer and (folder / OPTIMIZER_FILE).is_file() else {}
    return Start(manifest["fingerprint"], load_file(folder / MODEL_FILE) | kept)
