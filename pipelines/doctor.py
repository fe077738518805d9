"""What this machine has, what a run needs, and one sentence on how to mend each difference."""

import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from recsys.artefact import code_version
from recsys.errors import InputError
from recsys.track import describe_store, waiting

MIN_DISK_GB = 5.0
MIN_MEMORY_GB = 2.0
FBGEMM_FLAVOURS = ("fbgemm-gpu-cpu", "fbgemm-gpu")
OPTIONAL = {  # package -> extra that installs it, and what for
    "deltalake": ("delta", "to read Delta Lake tables"),
    "ray": ("ray", "to prepare data on a Ray cluster (recsys prepare --engine ray)"),
}
REINSTALL = "Delete .venv and run scripts/setup.sh."

# The import itself is the test of an ABI mismatch, and the operator is the test that the library was loaded.
IMPORT_TRIO = (
    "import torch, torchrec, fbgemm_gpu; torch.ops.fbgemm.asynchronous_complete_cumsum(torch.ones(2, dtype=torch.int64))"
)


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool | None  # None: works, but look at it
    found: str
    mend: str = ""


def checks(uri: str | None = None) -> list[Check]:
    """Every check in order of dependence; none raises, creates or changes anything. Takes some seconds of imports."""
    if _version("recsys") is None:
        return [Check("recsys", False, "not installed in this Python", REINSTALL)]
    needed = [
        python(),
        trio_versions(),
        trio_imports(),
        onnx_runtime(),
        gpu(),
        store(uri),
        spool(uri),
        disk(),
        memory(),
        commit(),
    ]
    return [*needed, *map(optional, OPTIONAL)]


def healthy(found: Sequence[Check]) -> bool:
    """Whether no check failed; a warning is no failure."""
    return all(check.ok is not False for check in found)


def to_json(found: Sequence[Check]) -> dict[str, Any]:
    return {"ok": healthy(found), "checks": [asdict(check) for check in found]}


def render(found: Sequence[Check]) -> Table:
    """The checks for a rich console."""
    marks = {True: "[green]ok[/]", None: "[yellow]look[/]", False: "[bold red]mend[/]"}
    table = Table("check", "")
    for column in ("found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in found:
        table.add_row(check.name, marks[check.ok], escape(check.found), escape(check.mend))
    return table


def python() -> Check:
    wanted = metadata.metadata("recsys")["Requires-Python"]
    version = platform.python_version()
    ok = Requirement(f"python{wanted}").specifier.contains(version)
    return Check("python", ok, version, "" if ok else f"Run PYTHON=/path/to/python scripts/setup.sh with Python {wanted}.")


def trio_versions() -> Check:
    """The installed torch, torchrec and fbgemm, of whichever flavour, against the package's pins."""
    pins = {each.name: each.specifier for each in map(Requirement, metadata.requires("recsys") or [])}
    fbgemm = next((name for name in FBGEMM_FLAVOURS if _version(name)), FBGEMM_FLAVOURS[0])
    versions = {name: _version(name) for name in ("torch", "torchrec", fbgemm)}
    wrong = [
        f"{name} is {version or 'absent'} where {pins[name]} is needed"
        for name, version in versions.items()
        if version is None or not pins[name].contains(version)
    ]
    found = "; ".join(wrong) or ", ".join(f"{name} {version}" for name, version in versions.items())
    return Check("torch, torchrec, fbgemm", not wrong, found, f"The three are one choice: {REINSTALL}" if wrong else "")


def trio_imports() -> Check:
    """Import them in a process of its own, because a mismatch can also crash it."""
    failed, output = _run(sys.executable, "-W", "ignore", "-c", IMPORT_TRIO, timeout_s=180)
    if failed:
        return Check("they import together", False, output.strip().rpartition("\n")[2] or "the process crashed", REINSTALL)
    return Check("they import together", True, "yes")


def onnx_runtime() -> Check:
    """The providers that a session gets, which can be fewer than the ones that ONNX Runtime lists."""
    try:
        listed, usable = _session_providers()
    except Exception as error:  # whatever the native library makes of a broken installation
        return Check("onnxruntime", False, f"no session: {str(error).partition(chr(10))[0]}", REINSTALL)
    if unusable := [name for name in listed if name not in usable]:
        found = f"{', '.join(usable)}; listed and not usable: {', '.join(unusable)}"
        return Check(
            "onnxruntime", None, found, "Serving uses the CPU; install the NVIDIA driver and CUDA libraries for the GPU."
        )
    return Check("onnxruntime", True, ", ".join(usable))


def gpu() -> Check:
    failed, output = _run("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader", timeout_s=20)
    if failed:
        return Check("gpu", True, "none, so training and serving use the CPU")
    found = "; ".join(output.strip().splitlines())
    if _version("fbgemm-gpu") is None:
        return Check(
            "gpu", None, found, "The CPU flavour is installed: run RECSYS_FLAVOUR=cuda scripts/setup.sh to use the GPU."
        )
    return Check("gpu", True, found)


def store(uri: str | None) -> Check:
    try:
        return Check("mlflow store", True, describe_store(uri))
    except InputError as error:
        problem, _, mend = str(error).rpartition(": ")
        return Check("mlflow store", False, problem, f"{mend[:1].upper()}{mend[1:]}.")


def spool(uri: str | None) -> Check:
    """What runs have logged while the store was away, or was a killed process's to send."""
    found = waiting(uri)
    if not found:
        return Check("mlflow spool", True, "nothing waits to be sent")
    entries = sum(each.entries for each in found)
    what = f"{len(found)} journal{'s' * (len(found) != 1)} with {entries} entries wait in {Path(found[0].folder).parent}"
    return Check(
        "mlflow spool", None, what, "Run recsys sync when the store answers; the next command that opens it does so, too."
    )


def disk() -> Check:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    mend = f"Free {MIN_DISK_GB:.0f} GB here, or work in a folder on another disk."
    return _above("disk", free_gb, MIN_DISK_GB, mend)


def memory() -> Check:
    available_gb = psutil.virtual_memory().available / 1e9
    return _above(
        "memory", available_gb, MIN_MEMORY_GB, "Close other programs, or lower the batch size and the embedding width."
    )


def commit() -> Check:
    found = code_version()
    if found == "unknown":
        return Check("code commit", None, found, "Work in a git checkout, so that a run says which code made it.")
    return Check("code commit", True, found)


def optional(package: str) -> Check:
    """A package that only some runs need: that it is not there is no fault."""
    extra, use = OPTIONAL[package]
    version = _version(package)
    if version is None:
        return Check(
            f"{package} (optional)", True, f"not installed; it serves {use}", f"Only {use}: pip install 'recsys[{extra}]'"
        )
    return Check(f"{package} (optional)", True, f"{version}, {use}")


def _above(name: str, value_gb: float, minimum_gb: float, mend: str) -> Check:
    enough = value_gb >= minimum_gb
    return Check(name, True if enough else None, f"{value_gb:.1f} GB free", "" if enough else mend)


def _session_providers() -> tuple[list[str], list[str]]:
    """The listed and the usable providers, of the two that the project uses."""
    import onnxruntime
    from onnx import TensorProto, helper

    tensor = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"}
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", [tensor["x"]], [tensor["y"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    listed = [
        name for name in onnxruntime.get_available_providers() if name in ("CUDAExecutionProvider", "CPUExecutionProvider")
    ]
    onnxruntime.set_default_logger_severity(4)  # what cannot be used is in the answer, not on the screen
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=listed)
    return listed, session.get_providers()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _run(*command: str, timeout_s: float) -> tuple[bool, str]:
    """Whether the command failed, and what it printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return True, str(error)
    return done.returncode != 0, done.stdout if done.returncode == 0 else done.stderr
