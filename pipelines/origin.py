"""What a run began from and ran on: what `recsys reproduce` needs beside the config, kept as one document in the run."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.workspace import Workspace
from recsys.spec import Spec

ORIGIN_FILE = "origin.json"  # of the run's artefacts
RAW_FILE = "raw.json"  # of the workspace
CPU_INFO = Path("/proc/cpuinfo")


class Machine(Spec):
    """What the last digits of a training depend on beside the packages: sums are split by thread and process, kernels are
    chosen by the processor."""

    processor: str
    kernels: str  # the vector instructions that torch uses
    device: str
    threads: int
    processes: int

    def differences(self, other: "Machine") -> dict[str, tuple[Any, Any]]:
        mine, theirs = self.model_dump(), other.model_dump()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


class Origin(Spec):
    """`raw` is None where `prepare` ran before it kept the folder; `began_from` names the workspace of `--from`."""

    raw: str | None
    inputs: dict[str, str]  # raw file -> its hash
    content: str  # of the dataset, the same for any numbering of ids; within one version of Polars
    dataset: str  # hash of the dataset's files, numbering included
    polars: str
    parts: tuple[str, ...]
    began_from: str | None
    machine: Machine


def this_machine(processes: int | None = None) -> Machine:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return Machine(
        processor=_processor(), kernels=torch.backends.cpu.get_cpu_capability(), device=device,
        threads=torch.get_num_threads(), processes=processes or int(os.environ.get("WORLD_SIZE", "1")),
    )  # fmt: skip


def remember_raw(workspace: Workspace, raw: Path) -> None:
    """Keep where the raw logs lie, absolute, beside the dataset that was made from them."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    text, path, scratch = json.dumps({"raw": str(raw.absolute())}) + "\n", workspace.root / RAW_FILE, f".{RAW_FILE}.tmp"
    if path.is_file() and path.read_text() == text:
        return
    (workspace.root / scratch).write_text(text)
    (workspace.root / scratch).rename(path)


def origin(workspace: Workspace, dataset: Mapping[str, Any], parts: Sequence[str], start: Workspace | None) -> dict[str, Any]:
    """As it is stored with a run; `dataset` is the manifest."""
    path = workspace.root / RAW_FILE
    return Origin(
        raw=json.loads(path.read_text())["raw"] if path.is_file() else None,
        inputs=dict(dataset["inputs"]), content=dataset["content"], dataset=dataset["fingerprint"], polars=dataset["polars"],
        parts=tuple(parts),
        began_from=None if start is None else str(start.root.absolute()), machine=this_machine(),
    ).model_dump(mode="json")  # fmt: skip


def _processor() -> str:
    """The model's name where Linux tells it, else what Python knows."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
