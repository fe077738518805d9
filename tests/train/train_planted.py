"""Training runs of their own, for tests that kill them or need several processes: `train_planted.py <JSON list of options>`.

Run alone or under `python -m torch.distributed.run`.
"""

import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from generator_world import generator_config
from planted_data import planted_config

from pipelines.policy import train_policy
from pipelines.train import train_generator, train_ranker, train_retriever
from pipelines.workspace import Workspace
from recsys.dataset import Dataset
from recsys.train import checkpoint
from recsys.train.distributed import process_group


class Reporter:
    """Kills this process with SIGKILL at a step, as an operator or the machine's memory guard would."""

    def __init__(self, kill_at_step: int | None):
        self.kill_at_step = kill_at_step

    def step(self, job: str, *, step: int, **_: Any) -> None:
        if step == self.kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def validated(self, job: str, **_: Any) -> None: ...


def kill_in_save(call: int) -> None:
    """Die in the middle of the n-th checkpoint, its file half written."""
    save_file, calls = checkpoint.save_file, []

    def broken(tensors: dict[str, torch.Tensor], path: Path) -> None:
        calls.append(path)
        save_file(tensors, path)
        if len(calls) == call:
            path.write_bytes(path.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = broken


def run(options: dict[str, Any], device: torch.device) -> None:
    if "kill_in_save" in options:
        kill_in_save(options["kill_in_save"])
    config = planted_config(**options.get("config", {}))
    if "generator" in options:  # keys of its section
        config = generator_config(
            options["generator"], dropout=options.get("generator_dropout", 0.1), **options.get("sections", {})
        )
    if not options.get("dropout", True):
        retriever = config.retriever.model_copy(
            update={"encoder": config.retriever.encoder.model_copy(update={"dropout": 0.0})}
        )
        config = config.model_copy(update={"retriever": retriever, "ranker": config.ranker.model_copy(update={"dropout": 0.0})})
    workspace = Workspace(Path(options.get("workspace", ".")))
    trainers = {
        "retriever": train_retriever, "ranker": train_ranker, "policy": functools.partial(train_policy, workspace=workspace),
        "generator": functools.partial(train_generator, workspace=workspace),
    }  # fmt: skip
    train = trainers[options["part"]]
    train(
        config, Dataset(Path(options["data"])), Path(options["out"]), device=device,
        progress=Reporter(options.get("kill_at_step")), stop_after_steps=options.get("stop_after_steps"),
    )  # fmt: skip


if __name__ == "__main__":
    torch.cuda.is_available = lambda: False  # one machine's GPUs are not shared by the processes of a test
    with process_group() as device:
        for options in json.loads(sys.argv[1]):
            run(options, device)
