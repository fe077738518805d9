"""Two real processes over gloo against one. Slowest of the folder: every start of two processes takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config
from safetensors.torch import load_file
from training_runs import WORKER, resume_folder, train, without_dropout

from recsys.artefact import read_manifest
from recsys.dataset import Dataset
from recsys.train.checkpoint import RESUME_FILE
from recsys.train.loop import HISTORY_FILE, MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
PARTS = ("retriever", "ranker")


LEARN = {"epochs": 8, "patience": 8, "embedding_learning_rate": 0.2, "learning_rate": 0.01}
MOVE = {"epochs": 2, "batch_size": 24, "checkpoint_minutes": 0}
EXACT = {"epochs": 2, "batch_size": 16}
HELPED = {  # by parts with parameters of their own, and rows that stand together
    "retriever": {
        "encoder": {"kind": "sasrec", "dim": 16, "blocks": 1, "heads": 2, "dropout": 0.1}, "fit": EXACT,
        "loss": {"kind": "bpr"}, "hard": {"kind": "coupled", "count": 4}, "negatives": {"kind": "catalogue"},
        "denoise": {"kind": "self_taught", "start_step": 1},
    },
    "ranker": {
        "dim": 8, "max_history": 5, "fit": EXACT, "denoise": {"kind": "personal", "pool_size": 2},
        "debias": {"kind": "doubly_robust"},
    },
}  # fmt: skip


def two(data: Dataset, *jobs: dict[str, Any]) -> None:
    """Run the jobs one after another in two processes."""
    jobs = tuple({"data": str(data.folder), **job} for job in jobs)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", WORKER, json.dumps(jobs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180)
    assert run.returncode == 0, run.stderr[-4000:]


def job(part: str, out: Path, fit: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"part": part, "out": str(out), "config": {"fit": fit}, **options}


@pytest.fixture(scope="module")
def trained(planted: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave: runs to the end, runs stopped at a step, and runs stopped twice."""
    root = tmp_path_factory.mktemp("two")
    jobs = []
    for part in PARTS:
        jobs.append(job(part, root / f"learnt-{part}", {**LEARN, "batch_size": 32}))
        jobs.append(job(part, root / f"moved-{part}", MOVE, dropout=False, stop_after_steps=2))
        jobs.append(job(part, root / f"stayed-{part}", MOVE, dropout=False))
        for name, stop in (("whole", 5), ("parts", 2), ("parts", 5)):
            jobs.append(job(part, root / f"{name}-{part}", EXACT, stop_after_steps=stop))
            helped = {"part": part, "out": str(root / f"helped-{name}-{part}"), "config": {part: HELPED[part]}}
            jobs.append({**helped, "stop_after_steps": stop})
    two(planted, *jobs)
    return root


@pytest.mark.parametrize(("part", "metric"), [("retriever", "valid/NDCG@5"), ("ranker", "valid/AUC/click")])
def test_two_processes_learn_what_one_learns(
    part: str, metric: str, trained: Path, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    train(part, planted_config({**LEARN, "batch_size": 32}), planted, tmp_path / part, group)
    outs = [tmp_path / part, trained / f"learnt-{part}"]
    values = [max(entry[metric] for entry in json.loads((out / HISTORY_FILE).read_text())) for out in outs]
    assert min(values) > 0.8
    assert abs(values[0] - values[1]) < 0.1
    one, both = (load_file(out / MODEL_FILE) for out in outs)
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in both.items()}


@pytest.mark.parametrize("helped", ["", "helped-"])
@pytest.mark.parametrize("part", PARTS)
def test_two_processes_resume_exactly_where_they_were(part: str, helped: str, trained: Path) -> None:
    whole, parts = (load_file(resume_folder(trained / f"{helped}{name}-{part}") / RESUME_FILE) for name in ("whole", "parts"))
    assert any(name.startswith("helpers/") for name in whole) == bool(helped)
    assert whole.keys() == parts.keys()
    assert not [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])]


def test_blocks_of_rows_begin_differently(trained: Path) -> None:
    state = load_file(resume_folder(trained / "moved-retriever") / RESUME_FILE)
    item_ID = state["model/embeddings.items.collection.embeddings.item.weight"]
    blocks = item_ID.split(len(item_ID) // 2)
    assert (blocks[0] - blocks[1]).abs().mean() > 0.005


def test_two_processes_to_one_and_back_is_as_if_they_had_stayed(trained: Path, planted: Dataset, group: torch.device) -> None:
    for part in PARTS:
        out = trained / f"moved-{part}"
        assert read_manifest(resume_folder(out), "checkpoint")["state"]["step"] == 2
        train(part, without_dropout(planted_config(MOVE)), planted, out, group, stop_after_steps=5)
        saved = read_manifest(resume_folder(out), "checkpoint")["state"]
        assert saved["step"] == 5
    two(planted, *(job(part, trained / f"moved-{part}", MOVE, dropout=False) for part in PARTS))
    for part in PARTS:
        moved, stayed = (load_file(trained / f"{name}-{part}" / MODEL_FILE) for name in ("moved", "stayed"))
        assert moved.keys() == stayed.keys()
        for name, tensor in stayed.items():
            torch.testing.assert_close(moved[name], tensor, atol=1e-6, rtol=0, msg=name)
