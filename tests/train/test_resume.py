"""Stopped, killed and damaged runs go on from their checkpoint, and only from their own."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted_data import planted_config
from torch import Tensor
from training_runs import (
    WORKER,
    Recorder,
    assert_same_tensors,
    config_of,
    environment,
    history,
    resume_folder,
    run_toy,
    state_without_clock,
    tensors,
    toy_job,
    train,
)

from recsys.artefact import read_manifest
from recsys.config import RunConfig
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.fit import Fit
from recsys.train.checkpoint import RESUME_FILE
from recsys.train.job import Start

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


@pytest.mark.parametrize("part", ["retriever", "ranker"])
def test_stopped_and_resumed_equals_undisturbed_bit_for_bit(
    part: str, planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, whole, parts = config_of(), tmp_path / "whole", tmp_path / "parts"
    steps = read_steps(part, config, planted)
    late = steps + steps // 2  # in the middle of the second epoch

    assert train(part, config, planted, whole, group, stop_after_steps=late) == {}
    assert not whole.exists()
    # Stops: at the first step, in mid-epoch, after an epoch's last step but before its validation, in the next epoch.
    for stop in (1, steps // 2, steps, steps + 1, late):
        torch.manual_seed(stop)  # whatever random numbers the process drew before
        train(part, config, planted, parts, group, stop_after_steps=stop)
    saved = tensors(resume_folder(whole))
    assert {name.split("/")[0] for name in saved} == {"model", "best", "dense", "fused_optimizer"}
    assert_same_tensors(saved, tensors(resume_folder(parts)))
    assert state_without_clock(resume_folder(whole)) == state_without_clock(resume_folder(parts))

    undisturbed = train(part, config, planted, tmp_path / "third", group)
    for out in (whole, parts):
        manifest = train(part, config, planted, out, group)
        assert manifest["best"] == undisturbed["best"]
        assert_same_tensors(tensors(out), tensors(tmp_path / "third"))
        assert history(out) == history(tmp_path / "third")
        assert not out.with_name(out.name + ".resume").exists()


def read_steps(part: str, config: RunConfig, data: Dataset) -> int:
    """Steps of the first epoch."""
    recorder = Recorder()
    out = data.folder.with_name(f"steps-{part}")
    one = config.model_copy(update={part: getattr(config, part).model_copy(update={"fit": Fit(batch_size=32, epochs=1)})})
    train(part, one, data, out, torch.device("cpu"), progress=recorder)
    assert len(recorder.losses) > 4
    return len(recorder.losses)


@pytest.mark.parametrize("kill", [{"kill_at_step": 9}, {"kill_in_save": 8}])
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    kill: dict[str, int], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    settings = {"epochs": 3, "batch_size": 32, "checkpoint_minutes": 0}
    options = {
        "part": "retriever",
        "data": str(planted.folder),
        "out": str(tmp_path / "killed"),
        "config": {"fit": settings},
        **kill,
    }
    run = subprocess.run(
        [sys.executable, WORKER, json.dumps([options])], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert not (tmp_path / "killed").exists()
    saved = read_manifest(resume_folder(tmp_path / "killed"), "checkpoint", verify=True)
    assert 5 < saved["state"]["step"] < 9

    config = planted_config(settings)
    for out in ("killed", "undisturbed"):
        train("retriever", config, planted, tmp_path / out, group)
    assert_same_tensors(tensors(tmp_path / "killed"), tensors(tmp_path / "undisturbed"))
    assert history(tmp_path / "killed") == history(tmp_path / "undisturbed")
    assert not list(tmp_path.glob(".*")), "leftovers of the killed run"


def test_a_checkpoint_caught_between_two_renames_is_not_lost(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    config, out = config_of(), tmp_path / "retriever"
    train("retriever", config, planted, out, group, stop_after_steps=7)
    newest = resume_folder(out)
    newest.rename(newest.with_name(f".{newest.name}.old"))
    recorder = Recorder()
    train("retriever", config, planted, out, group, stop_after_steps=9, progress=recorder)
    assert len(recorder.losses) == 2


def test_a_damaged_checkpoint_is_not_used_and_the_one_before_it_is(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, out = config_of(), tmp_path / "retriever"
    for stop in (1, 3, 5):
        train("retriever", config, planted, out, group, stop_after_steps=stop)
    kept = sorted(out.with_name("retriever.resume").iterdir())
    assert [folder.name for folder in kept] == ["step-000000003", "step-000000005"]
    damage(kept[1])
    recorder = Recorder()
    train("retriever", config, planted, out, group, stop_after_steps=6, progress=recorder)
    assert len(recorder.losses) == 3  # from step 3

    for folder in out.with_name("retriever.resume").iterdir():
        damage(folder)
    with pytest.raises(InputError, match=rf"{RESUME_FILE} .*removing .*retriever\.resume"):
        train("retriever", config, planted, out, group)


def damage(folder: Path) -> None:
    file = folder / RESUME_FILE
    file.write_bytes(file.read_bytes()[:-10] + b"0123456789")


@pytest.mark.parametrize("change", [{"seed": 2}, {"max_history": 4}])
def test_the_checkpoint_of_another_config_is_not_gone_on_from(
    change: dict[str, int], planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config, out = config_of(), tmp_path / "retriever"
    other = config.model_copy(update=change)
    train("retriever", config, planted, out, group, stop_after_steps=5)
    train("retriever", other, planted, out, group)
    train("retriever", other, planted, tmp_path / "fresh", group)
    assert_same_tensors(tensors(out), tensors(tmp_path / "fresh"))


def test_a_run_killed_when_its_time_was_up_still_has_a_model(planted: Dataset, group: torch.device, tmp_path: Path) -> None:
    """Between the checkpoint of the last step and the end of the validation."""

    def killed(state: dict[str, Tensor]) -> dict[str, float]:
        raise KeyboardInterrupt

    settings = {"epochs": 10**6, "max_minutes": 1e-9, "checkpoint_minutes": 0}
    with pytest.raises(KeyboardInterrupt):
        run_toy(toy_job(planted, killed), tmp_path / "killed", group, **settings)
    assert resume_folder(tmp_path / "killed").name == "step-000000001"
    for name in ("killed", "undisturbed"):
        manifest = run_toy(toy_job(planted, lambda _: {"m": 1.0}), tmp_path / name, group, **settings)
        assert (manifest["steps"], manifest["epochs"], manifest["best"]) == (1, 1, 1.0)
    assert_same_tensors(tensors(tmp_path / "killed"), tensors(tmp_path / "undisturbed"))


def test_a_run_that_began_from_other_parameters_is_not_gone_on_from(
    planted: Dataset, group: torch.device, tmp_path: Path
) -> None:
    config = config_of(epochs=1)
    train("retriever", config, planted, tmp_path / "old", group)
    start, out = Start("old", tensors(tmp_path / "old")), tmp_path / "new"
    train("retriever", config, planted, out, group, start=start, stop_after_steps=2)
    for steps, options in ((1, {"start": start}), (3, {})):  # goes on from step 2; begins anew
        recorder = Recorder()
        train("retriever", config, planted, out, group, progress=recorder, stop_after_steps=3, **options)
        assert len(recorder.losses) == steps
