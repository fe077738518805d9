"""The checks on this machine, and each one's mend where something is wrong."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import doctor


@pytest.fixture
def nothing_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def test_this_environment_is_healthy_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = doctor.checks()
    assert doctor.healthy(found), [check for check in found if check.ok is False]
    assert len({check.name for check in found}) == len(found)
    assert all(check.mend for check in found if check.ok is not True)
    assert "CPUExecutionProvider" in doctor.onnx_runtime().found
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_opened_fails_with_its_mend(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database" * 100)
    check = doctor.store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert check.ok is False
    assert "file is not a database" in check.found
    assert check.mend.startswith("Check --store or MLFLOW_TRACKING_URI")


def test_another_torch_than_the_pinned_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "2.14.0" if name == "torch" else real(name))
    check = doctor.trio_versions()
    assert check.ok is False
    assert check.found == "torch is 2.14.0 where ==2.13.0 is needed"
    assert "scripts/setup.sh" in check.mend


def test_a_missing_fbgemm_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in doctor.FBGEMM_FLAVOURS else real(name))
    assert doctor.trio_versions().found == "fbgemm-gpu-cpu is absent where ==1.8.0 is needed"


def test_an_import_that_fails_says_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "IMPORT_TRIO", "raise ImportError('undefined symbol: abi')")
    check = doctor.trio_imports()
    assert (check.ok, check.found) == (False, "ImportError: undefined symbol: abi")


@pytest.mark.parametrize(("package", "use"), [("deltalake", "Delta Lake tables"), ("ray", "recsys prepare --engine ray")])
def test_an_optional_package_is_listed_with_its_use_and_is_no_fault(
    package: str, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert package in doctor.OPTIONAL
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    absent = doctor.optional(package)
    assert absent.ok is True
    assert use in absent.found
    assert "pip install 'recsys[" in absent.mend
    monkeypatch.setattr(doctor, "_version", lambda name: "9.8")
    assert doctor.optional(package).found.startswith("9.8")
    assert doctor.optional(package).mend == ""


def test_little_disk_or_memory_is_a_warning_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_DISK_GB", 1e9)
    monkeypatch.setattr(doctor, "MIN_MEMORY_GB", 1e9)
    found = [doctor.disk(), doctor.memory()]
    assert [check.ok for check in found] == [None, None]
    assert all(check.mend for check in found)
    assert doctor.healthy(found)


@pytest.mark.usefixtures("nothing_on_path")
def test_without_nvidia_smi_and_git() -> None:
    assert doctor.gpu().ok is True
    assert doctor.commit().ok is None


def test_a_gpu_with_the_cpu_flavour_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'H200, 143771 MiB, 580.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    check = doctor.gpu()
    assert (check.ok, check.found) == (None, "H200, 143771 MiB, 580.1")
    assert "RECSYS_FLAVOUR=cuda" in check.mend


def test_table_and_json_hold_every_check() -> None:
    found = [doctor.Check("a", True, "x"), doctor.Check("b", False, "y [z]", "Do this.")]
    console = Console(file=io.StringIO(), width=120)
    console.print(doctor.render(found))
    assert "y [z]" in console.file.getvalue()  # type: ignore[attr-defined]
    assert json.loads(json.dumps(doctor.to_json(found)))["ok"] is False
