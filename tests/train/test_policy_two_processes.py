"""A policy in two real processes over gloo against one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config
from policy_world import FIT, WEAK
from safetensors.torch import load_file
from test_two_processes import two
from training_runs import Recorder, resume_folder

from pipelines.policy import train_policy
from pipelines.train import train_retriever
from pipelines.workspace import Workspace
from recsys.artefact import read_manifest
from recsys.dataset import Dataset
from recsys.train.checkpoint import RESUME_FILE
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
BEAM: dict[str, Any] = {"fit": {**FIT, "epochs": 2}}  # draws nothing, so that processes see what one sees
DRAWN: dict[str, Any] = {
    "fit": {**FIT, "epochs": 2}, "proposals": {"kind": "sample", "count": 6}, "rewards": [{"kind": "hit"}],
    "constrained": {"at_least": [0.1]},
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(planted: Dataset, group: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A retriever, and what two processes make of it: a policy to the end, one stopped at a step, and one stopped twice."""
    root = tmp_path_factory.mktemp("two-policies")
    train_retriever(planted_config(WEAK), planted, root / "retriever", device=group, progress=Recorder())
    names = {"beam": (BEAM, [None]), "whole": (DRAWN, [14]), "pieces": (DRAWN, [3, 14])}
    two(
        planted,
        *(
            {
                "part": "policy", "out": str(root / name), "workspace": str(root),
                "config": {"fit": WEAK, "policy": policy}, "stop_after_steps": stop,
            }
            for name, (policy, stops) in names.items()
            for stop in stops
        ),
    )  # fmt: skip
    return root


def test_two_processes_learn_what_one_learns(trained: Path, planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config = planted_config(WEAK, policy=BEAM)
    train_policy(config, planted, tmp_path / "one", workspace=Workspace(trained), device=group, progress=Recorder())
    one, both = (read_manifest(folder, "checkpoint")["guard"] for folder in (tmp_path / "one", trained / "beam"))
    assert one["kept"] == both["kept"] == "policy"
    assert one["parent"] == both["parent"]
    assert one["best"] == pytest.approx(both["best"], abs=0.02)
    ours, theirs = (load_file(folder / MODEL_FILE) for folder in (tmp_path / "one", trained / "beam"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=5e-3, rtol=0, msg=name)


def test_two_processes_resume_exactly_where_they_were(trained: Path) -> None:
    whole, pieces = (load_file(resume_folder(trained / name) / RESUME_FILE) for name in ("whole", "pieces"))
    assert any(name.startswith("helpers/") for name in whole)
    assert whole.keys() == pieces.keys()
    assert not [name for name, tensor in whole.items() if not torch.equal(tensor, pieces[name])]
