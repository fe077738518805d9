"""Shipped configs reach the quality they are known for: trained whole on the real logs, judged as `recsys evaluate` does."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from pipelines.evaluate import flat_metrics
from pipelines.workspace import CONFIGS
from recsys.config import load
from recsys.spec import Spec


class Known(Spec):
    value: float
    tolerance: float = Field(gt=0)


class Expected(Spec):
    folder: str
    minutes: float = Field(gt=0)
    metrics: dict[str, Known] = Field(min_length=1)


EXPECTED = {
    name: Expected.model_validate(entry)
    for name, entry in yaml.safe_load((Path(__file__).parent / "expected.yaml").read_text()).items()
}


def differences(found: Mapping[str, float], known: Mapping[str, Known]) -> list[str]:
    """A sentence for every metric that is not there or not within its tolerance."""
    said = []
    for name, entry in known.items():
        if name not in found:
            said.append(f"{name} is missing")
        elif abs(found[name] - entry.value) > entry.tolerance:
            said.append(f"{name} is {found[name]:.4f}, not within {entry.tolerance} of {entry.value}")
    return said


def test_a_difference_of_the_tolerance_is_none() -> None:
    known = {name: Known(value=0.5, tolerance=0.25) for name in ("low", "high", "worse", "better", "gone")}
    assert differences({"low": 0.25, "high": 0.75, "worse": 0.2499, "better": 0.7501}, known) == [
        "worse is 0.2499, not within 0.25 of 0.5",
        "better is 0.7501, not within 0.25 of 0.5",
        "gone is missing",
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_expected_can_be_measured(name: str) -> None:
    """The names are those of a shipped config, its lists and its tasks."""
    config = load(CONFIGS / f"{name}.yaml")
    lists = tuple(f"@{k}" for k in config.evaluation.ks)
    for metric in EXPECTED[name].metrics:
        assert metric.startswith(("test/", "floor/")), metric
        assert metric.endswith(lists) or metric.split("/")[-1] in config.tasks, metric


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_shipped_config_reaches_what_it_is_known_for(name: str, tmp_path: Path) -> None:
    root, expected = os.environ.get("RECSYS_DATA"), EXPECTED[name]
    if not root:
        pytest.skip("set RECSYS_DATA to the folder of the real data sets")
    data = Path(root).absolute() / expected.folder
    if not data.is_dir():
        pytest.skip(f"no {expected.folder} in {root}")
    common = ["--config", name, "--workspace", str(tmp_path / "run")]
    for words in (["prepare", *common, "--data", str(data)], ["train", *common], ["evaluate", *common, "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=4 * 60 * expected.minutes,
        )  # fmt: skip
        assert done.returncode == 0, f"recsys {' '.join(words)} failed: {done.stderr}"
    found = differences(flat_metrics(json.loads(done.stdout)), expected.metrics)
    assert not found, "; ".join(found)
