"""Each benchmark of training runs on tiny sizes and writes what it promises; tables train without a gradient of their size."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HIDDEN = ("polars", "mlflow", "bentoml", "psutil", "safetensors", "scipy", "pandas")  # not on the machine with the GPU
PEER = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
for name in "data out epochs dim blocks heads max-len batch lr dropout threads seed".split():
    parser.add_argument("--" + name, required=True)
args = parser.parse_args()
assert (pathlib.Path(args.data) / "ratings.parquet").exists()
result = {"seconds_per_epoch": 2.0, "targets_per_epoch": 1000, "test": {"filtered": {"NDCG@10": 0.5}}, "peak_rss_mb": 7}
pathlib.Path(args.out).write_text(json.dumps(result))
"""


# As `python -m benchmarks.NAME`, but leaves the figures of real runs in benchmarks/out alone.
RUN = """
import importlib, pathlib, sys
from benchmarks import measure
name, out = sys.argv[1:3]
measure.OUT, sys.argv[1:] = pathlib.Path(out), sys.argv[3:]
importlib.import_module("benchmarks." + name).main()
"""


def run(name: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, name, str(out), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def facts(name: str, out: Path, *options: str) -> dict[str, Any]:
    done = run(name, out, *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == found
    return found


def test_embeddings_compares_ours_with_fbgemm(tmp_path: Path) -> None:
    ways = ["fbgemm", "ours", "bag_sgd", "bag_adagrad", "dense"]
    sizes = [
        "--tables",
        "2",
        "--rows",
        "100",
        "--dim",
        "8",
        "--batch",
        "16",
        "--repeat",
        "2",
        "--warmup",
        "1",
        "--threads",
        "1",
    ]
    found = facts("embeddings", tmp_path, *sizes, "--bags", "1", "3", "--ways", *ways)
    for bag in ("1", "3"):
        assert list(found["ms"][bag]) == ways
        assert found["ratio"][bag] == pytest.approx(found["ms"][bag]["ours"] / found["ms"][bag]["fbgemm"], rel=0.01)


def test_embeddings_refuses_to_run_without_the_two_that_are_compared(tmp_path: Path) -> None:
    done = run("embeddings", tmp_path, "--ways", "ours", "bag_sgd")
    assert done.returncode == 1
    assert "--ways needs fbgemm and ours" in done.stderr


@pytest.mark.slow
def test_train_takes_turns_with_the_plain_model_and_the_peers(tmp_path: Path) -> None:
    (tmp_path / "first_sasrec.py").write_text(PEER)
    (tmp_path / "absent_sasrec.py").write_text(PEER)
    python = tmp_path / "venv" / "first" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    done = run(
        "train", tmp_path, "--users", "40", "--items", "60", "--events", "800", "--epochs", "1", "--rounds", "1",
        "--length", "10", "--dim", "8", "--blocks", "1", "--batch", "8", "--threads", "1", "--work", str(tmp_path / "work"),
        "--peers", str(tmp_path), "--peers-venv", str(tmp_path / "venv"), "--set", "retriever.fit.warmup_steps=0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "absent is left out" in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["ways"]) == ["ours", "ours, bfloat16", "plain PyTorch", "first"]
    assert found["ways"]["first"] | {"targets_per_s": 500, "ndcg_at_10": 0.5} == found["ways"]["first"]
    # Of every user's events the last two are held out, and the plain model has nothing to predict the first one from.
    assert found["ways"]["ours"]["targets_per_epoch"] == found["events"] - 2 * 40
    assert found["ways"]["plain PyTorch"]["targets_per_epoch"] <= 40 * 10


def test_gpu_says_that_there_is_none() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "There is no GPU here: run this on a machine with one, or with --device cpu to try the code."


def test_gpu_runs_with_what_the_machine_with_the_gpu_has(tmp_path: Path) -> None:
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[2].split(','))); sys.argv[1:] = sys.argv[3:]"
    code += "; from benchmarks.gpu import main; main()"
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-c", code, "-", ",".join(HIDDEN), "--device", "cpu", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["lookups"]["share_of_copy"] == found["lookups"]["bytes_per_s"] / found["copy_bytes_per_s"]
    for part, rate in (("encoder", "operations_per_s"), ("retriever", "events_per_s"), ("ranker", "examples_per_s")):
        assert list(found[part]) == ["float32", "bfloat16"]
        assert all(each[rate] > 0 for each in found[part].values())
    for part in ("retriever", "ranker"):  # the loop's own step: it looks up, updates dense parameters, then tables
        assert all({"lookup", "dense", "optimizer", "tables"} == set(each["parts_ms"]) for each in found[part].values())


@pytest.mark.slow
def test_tables_train_without_a_dense_gradient(tmp_path: Path) -> None:
    sizes = ["--tables", "2", "--rows", "4000000", "--dim", "16", "--batch", "1024", "--steps", "20", "--threads", "1"]
    found = facts("table_memory", tmp_path, *sizes)
    assert found["growth_mib"] < 0.2 * found["table_mib"] / 2  # of one table
