"""Commands that fail, are killed or are stopped, on a finished chain: one sentence, and nothing half-written."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chain_world import SMALL, Chain, recsys

from recsys import track


def test_a_stage_that_fails_shows_in_its_run_and_in_the_parent(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "dataset").symlink_to(chain.workspace.dataset)
    words = ["train", *SMALL, "--only", "retriever", "--workspace", str(tmp_path), "--store", f"sqlite:///{tmp_path}/mlflow.db"]
    done = recsys(*words, "--set", "retriever.fit.embedding_learning_rate=1e30", cwd=chain.folder)
    assert done.returncode == 2, done.stderr
    (parent,) = track.list_runs("recsys", uri=f"sqlite:///{tmp_path}/mlflow.db")
    below = track.children(parent.id, uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert (parent.status, [each.status for each in below]) == ("FAILED", ["FINISHED", "FAILED"])


def test_a_new_dataset_makes_old_checkpoints_unusable_with_a_sentence(chain: Chain, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "retriever").symlink_to(chain.workspace.checkpoint("retriever"))
    (run / "ranker").symlink_to(chain.workspace.checkpoint("ranker"))
    other = ["--workspace", str(run), *SMALL, "--set", "data.split={kind: leave_one_out}"]
    assert recsys("prepare", "--data", str(chain.workspace.raw), *other, cwd=chain.folder).returncode == 0
    done = recsys("evaluate", *other, cwd=chain.folder)
    assert done.returncode == 2
    assert "was trained on another dataset" in done.stderr
    assert not (run / "metrics").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prepare", "--data", "nowhere"], "nowhere is not a folder: name the folder of the raw logs with --data"),
        (
            ["train", "--config", "no-such"],
            "config 'no-such' is neither a file nor a shipped config: choose one of apao",
        ),
        (
            ["train", "--set", "retriever.fit.epoch=3"],
            "unknown key 'retriever.fit.epoch': choose from ['accumulate'",
        ),
        (["train", "--set", "retriever.loss.kind=hinge"], "'full_softmax', 'sampled_softmax'"),
        (["prepare", "--engine", "spark"], "--engine spark is unknown: choose one of"),
        (["prepare", "--address", "here:1"], "leave it out, or take --engine ray"),
        (["prepare", "--engine", "processes", "--workers", "0"], "--workers 0 does not fit --engine processes"),
        (["data", "diff", "runs/demo/dataset", "nowhere"], "nowhere holds no dataset: make it with `recsys prepare`"),
        (
            ["data", "report", "runs/demo"],
            "runs/demo holds no dataset: make it with `recsys prepare`, or name the right folder",
        ),
        (["data", "report", "runs/demo/dataset", "--html", "no/r.html"], "--html no/r.html cannot be written (No such file"),
        (
            ["data", "leaks", "runs/demo/raw"],
            "runs/demo/raw holds a 'raw' artefact where a dataset is needed: name another folder",
        ),
        (["train", "--set", "ranker.tasks={buy: 1}"], "ranker.tasks names the unknown task 'buy': choose from ['click'"),
        (["train", "--set", "retriever.fit.epochs"], "is not of the form section.key=value"),
        (["train", "--only", "both"], "--only 'both' is unknown: choose retriever, generator, policy or ranker"),
        (["train", "--workspace", "empty"], "holds no dataset: make it with `recsys prepare`"),
        (["serve", "--workspace", "empty"], "holds no bundle: make it with `recsys export`"),
        (["recommend", "--user", "u1", "--workspace", "empty"], "holds no bundle: make it with `recsys export`"),
        (
            ["recommend", "--user", "nobody", "--history", "i1"],
            "both of `user_id` and `history` given: send exactly one of them",
        ),
        (["recommend"], "neither of `user_id` and `history` given: send exactly one of them"),
        (["recommend", "--history", "i1", "--k", "0"], "k is 0"),
        (["recommend", "--history", "i1", "--k", "1000000000"], "k is 1000000000: ask for 1 to"),
        (["recommend", "--user", "u1", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
        (["simulate", "--items", "5"], "categories=20 is more than items=5"),
        (["demo", "--data", "nowhere"], "nowhere is not a folder"),
        (["compare", "nosuchrun"], "nosuchrun"),
    ],
)
def test_mistakes_end_with_one_sentence_and_exit_code_2(chain: Chain, words: list[str], sentence: str) -> None:
    before = sorted(chain.folder.rglob("manifest.json"))
    done = recsys(*words, cwd=chain.folder)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(chain.folder.rglob("manifest.json")) == before


def test_a_training_that_was_killed_goes_on_where_it_stopped(chain: Chain, tmp_path: Path, store: str) -> None:
    words = [
        "train",
        *SMALL,
        "--only",
        "retriever",
        "--workspace",
        str(tmp_path),
        "--store",
        store,
        "--set",
        "retriever.fit.checkpoint_minutes=0",
    ]
    words += ["--set", "retriever.fit.epochs=40", "--set", "retriever.fit.patience=40"]
    (tmp_path / "dataset").symlink_to(chain.workspace.dataset)
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *words], cwd=chain.folder, stderr=subprocess.DEVNULL)
    state = tmp_path / "retriever.resume"
    deadline = time.monotonic() + 120
    while not list(state.glob("step-*/manifest.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "retriever").exists()
    done = recsys(*words, "--set", "retriever.fit.epochs=40", cwd=chain.folder)
    assert done.returncode == 0, done.stderr
    assert "retriever: going on from step" in done.stderr
    assert (tmp_path / "retriever" / "manifest.json").is_file()
    assert not state.exists()


def test_an_artefact_of_another_format_version_is_refused(chain: Chain, tmp_path: Path) -> None:
    dataset = tmp_path / "run" / "dataset"
    dataset.mkdir(parents=True)
    manifest = json.loads((chain.workspace.dataset / "manifest.json").read_text()) | {"format_version": 99}
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    done = recsys("train", "--workspace", str(tmp_path / "run"), cwd=chain.folder)
    assert done.returncode == 2
    assert "has dataset format version 99, this recsys reads version 2: make it again with `recsys prepare`" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_half_written_artefact(chain: Chain, tmp_path: Path, stop: signal.Signals) -> None:
    out = tmp_path / "raw"
    words = ["simulate", "--events", "30000000", "--users", "100000", "--items", "20000", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words], cwd=chain.folder, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".raw.*.tmp/events/*/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert list(tmp_path.iterdir()) == []
