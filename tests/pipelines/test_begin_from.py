"""`recsys train --from`: an earlier run's models in a dataset that has grown."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted_data import planted_config, write_dataset
from safetensors.torch import load_file

from pipelines.train import train_retriever
from pipelines.workspace import Workspace, check_past, read_state
from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
ITEM = "embeddings.items.collection.embeddings.item.weight"


class Silent:
    def step(self, job: str, **_: Any) -> None: ...
    def validated(self, job: str, **_: Any) -> None: ...


def timelines(users: int, items: int) -> list[list[int]]:
    return [[FIRST_ID + (user + step) % items for step in range(6)] for user in range(users)]


def test_models_go_on_in_a_dataset_that_has_grown(group: torch.device, tmp_path: Path) -> None:
    config = planted_config({"epochs": 2, "batch_size": 8})
    yesterday, today = Workspace(tmp_path / "yesterday"), Workspace(tmp_path / "today")
    old = write_dataset(yesterday.dataset, timelines(20, 30), num_items=32)
    new = write_dataset(today.dataset, timelines(25, 38), num_items=40)
    train_retriever(config, old, yesterday.checkpoint("retriever"), device=group, progress=Silent())
    check_past(yesterday, new)
    start = read_state(yesterday, "retriever", config)
    for part, options in (("retriever", {"start": start}), ("anew", {})):
        train_retriever(config, new, today.checkpoint(part), device=group, progress=Silent(), **options)
    before, after, anew = (
        load_file(folder / MODEL_FILE)[ITEM]
        for folder in (yesterday.checkpoint("retriever"), today.checkpoint("retriever"), today.checkpoint("anew"))
    )
    assert (len(before), len(after)) == (32, 40)
    moved, apart = (after[:32] - before).norm(), (anew[:32] - before).norm()
    assert moved < apart, "it did not begin where the old run ended"

    with pytest.raises(InputError, match="is no past of"):
        check_past(today, old)
    with pytest.raises(InputError, match="and a vocabulary only grows"):
        train_retriever(
            config, old, tmp_path / "back", device=group, progress=Silent(), start=read_state(today, "retriever", config)
        )
