"""The comparison of ways to share: a killed comparison goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.multitask import _name
from recsys.simulate import Simulation, simulate

ROOT = Path(__file__).parents[1]


def test_a_way_is_named_by_its_kind_unless_another_has_the_same() -> None:
    esmm, wide = "{kind: esmm, given: {buy: click}}", "{kind: mmoe, experts: 8}"
    assert [_name(each, ["mmoe", esmm]) for each in ("mmoe", esmm)] == ["mmoe", "esmm"]
    assert [_name(each, ["mmoe", wide]) for each in ("mmoe", wide)] == ["mmoe", wide]


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    simulate(Simulation(users=60, items=40, events=4000, days=10), tmp_path / "raw")
    code = "import pathlib, sys; from benchmarks import measure; measure.OUT = pathlib.Path(sys.argv.pop(1))"
    code += "; from benchmarks.multitask import main; main()"
    options = ["--data", str(tmp_path / "raw"), "--config", "demo", "--seeds", "1", "--sharing", "shared_bottom", "ple"]
    options += ["--set", "ranker.fit.epochs=1", "--threads", "1", "--replicates", "20"]

    def compare() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path), *options]
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    first = compare()
    found = json.loads((tmp_path / "multitask-demo.json").read_text())
    assert json.loads(first.stdout.splitlines()[-1]) == found
    assert "difference" not in found["tasks"]["click"]["AUC"]["shared_bottom"]
    gap = found["tasks"]["click"]["AUC"]["ple"]["difference"]
    assert gap["low"] <= gap["mean"] <= gap["high"]
    assert found["ways"]["ple"]["dense_parameters"] > found["ways"]["shared_bottom"]["dense_parameters"]
    runs = sorted((tmp_path / "multitask" / "demo" / "runs").glob("*.json"))
    assert len(runs) == 2
    runs[0].unlink()  # as if killed in this run
    second = compare()
    assert second.stderr.count("done before") == 1
    assert json.loads((tmp_path / "multitask-demo.json").read_text())["tasks"] == found["tasks"]
