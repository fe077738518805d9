"""A generator, and a policy that goes on from it, in two real processes over gloo against one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from generator_world import begun, generator_config, train
from safetensors.torch import load_file
from test_two_processes import two
from training_runs import Recorder, resume_folder

from pipelines.policy import train_policy
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.dataset import Dataset
from recsys.train.checkpoint import RESUME_FILE
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
EXACT: dict[str, Any] = {"fit": {"epochs": 1}}  # begins alike and has no dropout, so that two see what one sees
DRAWN: dict[str, Any] = {"begin": "random", "tower": {"features": ["tags"], "id_dropout": 0.3}}
STEPS = {"learning_rate": 1e-3, "embedding_learning_rate": 0.02, "epochs": 1, "batch_size": 32, "warmup_steps": 1}
POLICY: dict[str, Any] = {"parent": "generator", "proposals": {"count": 8}, "fit": STEPS}


@pytest.fixture(scope="module")
def trained(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of the ids and the generator of one."""
    root = tmp_path_factory.mktemp("two-generators")
    config = generator_config(EXACT, dropout=0.0)
    workspace = begun(config, planted, group, root)
    train(config, planted, workspace.checkpoint("generator"), workspace, group)
    common = {"workspace": str(root), "generator_dropout": 0.0}
    jobs = [
        {"part": "generator", "out": str(root / "both"), "generator": EXACT, **common},
        {"part": "policy", "out": str(root / "both-policy"), "generator": EXACT, "sections": {"policy": POLICY}, **common},
    ]
    for name, stops in (("whole", [7]), ("pieces", [2, 7])):
        dropped = {**common, "part": "generator", "out": str(root / name), "generator": DRAWN, "generator_dropout": 0.1}
        jobs += [{**dropped, "stop_after_steps": stop} for stop in stops]
    two(planted, *jobs)
    return root


def test_two_processes_learn_what_one_learns(trained: Path, planted: Dataset) -> None:
    one, both = (load_file(trained / name / MODEL_FILE) for name in ("generator", "both"))
    assert one["decoder.bias.0"].abs().min() > 0.001, "which began at 0"
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, both[name], atol=5e-3, rtol=0, msg=name)


def test_a_policy_in_two_processes_is_that_of_one(trained: Path, planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = generator_config(EXACT, dropout=0.0, policy=POLICY)
    train_policy(config, planted, tmp_path / "one", workspace=Workspace(trained), device=group, progress=Recorder())
    guards = [read_manifest(folder, "checkpoint")["guard"] for folder in (tmp_path / "one", trained / "both-policy")]
    assert guards[0]["parent"] == guards[1]["parent"]
    assert guards[0]["best"] == pytest.approx(guards[1]["best"], abs=0.02)
    ours, theirs = (load_file(folder / MODEL_FILE) for folder in (tmp_path / "one", trained / "both-policy"))
    assert not torch.equal(ours["decoder.bias.0"], load_file(trained / "generator" / MODEL_FILE)["decoder.bias.0"])
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=5e-3, rtol=0, msg=name)


def test_two_processes_resume_exactly_where_they_were(trained: Path) -> None:
    whole, pieces = (load_file(resume_folder(trained / name) / RESUME_FILE) for name in ("whole", "pieces"))
    assert whole.keys() == pieces.keys()
    assert not [name for name, tensor in whole.items() if not torch.equal(tensor, pieces[name])]
