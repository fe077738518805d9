"""Item views do what they are for: an item that nobody took yet is found by a feature that the log never shows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_data import BLOCK_ITEMS, BLOCKS, NUM_ITEMS, planted_timelines
from safetensors.torch import load_file
from test_contrast_terms import config_with
from training_runs import Recorder

from pipelines.models import retrieval_graph
from pipelines.train import train_retriever
from recsys.columns import FIRST_ID, UNKNOWN_ID
from recsys.dataset import Dataset
from recsys.train.loop import MODEL_FILE

pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")
NEW = 2 * BLOCKS * 3  # new items: three of each block with both features, and three with the style alone
STYLES = 2


def log_with_new_items(make_dataset: Callable[..., Dataset]) -> Dataset:
    """Users walk through the items of their block. Makers and styles belong to blocks, but new items have styles of their own:
    only the new items that have a maker tell what such a style goes with."""
    block_I = np.concatenate([np.arange(BLOCKS).repeat(BLOCK_ITEMS), np.arange(BLOCKS).repeat(3), np.arange(BLOCKS).repeat(3)])
    place_I = np.arange(len(block_I))
    is_new_I, is_nameless_I = place_I >= len(block_I) - NEW, place_I >= len(block_I) - NEW // 2
    style_I = FIRST_ID + STYLES * (block_I + BLOCKS * is_new_I) + place_I % STYLES
    maker_I = np.where(is_nameless_I, UNKNOWN_ID, FIRST_ID + 3 * block_I + place_I % 3)
    features = {
        name: ("item", [UNKNOWN_ID] * FIRST_ID + codes.tolist()) for name, codes in (("maker", maker_I), ("style", style_I))
    }
    timelines = planted_timelines(80, np.random.default_rng(0))
    return make_dataset(timelines, num_items=FIRST_ID + len(block_I), features=features)


def own_block_first(data: Dataset, device: torch.device, out: Path, **terms: Any) -> float:
    """The share of users to whom the nameless new items of their own block score highest."""
    tower = {"features": ["maker", "style"], "id_dropout": 0.2}
    fit = {"epochs": 8, "batch_size": 16, "keep": "last", "evaluate_every": 8}
    config = config_with({"tower": tower, "encoder": {"kind": "mean_pooling", "dim": 16}, **terms}, **fit)
    train_retriever(config, data, out, device=device, progress=Recorder())
    graph = retrieval_graph(config, data, load_file(out / MODEL_FILE))
    history_U3 = torch.from_numpy(
        np.stack([data.item_E[start : start + 3] for start in data.start_U[FIRST_ID:]]).astype(np.int64)
    )
    with torch.no_grad():
        score_UI = graph.scores(history_U3, torch.full((len(history_U3),), 3), None)
    block_U = (history_U3[:, 0] - FIRST_ID) // BLOCK_ITEMS
    score_UB = score_UI[:, NUM_ITEMS + NEW // 2 :].view(-1, BLOCKS, 3).mean(2)
    return float((score_UB.argmax(1) == block_U).float().mean())


def test_new_items_are_found_by_what_goes_with_their_features(
    make_dataset: Callable[..., Dataset], group: torch.device, tmp_path: Path
) -> None:
    data = log_with_new_items(make_dataset)
    views = {"loss": {"temperature": 0.2}, "weight": 1.0, "items": 64}
    found = {
        "without": own_block_first(data, group, tmp_path / "without"),
        "random": own_block_first(data, group, tmp_path / "random", item_views={**views, "mask": {"kind": "random"}}),
        "correlated": own_block_first(data, group, tmp_path / "correlated", item_views=views),
    }
    assert found["without"] < 0.6
    assert found["random"] > found["without"] + 0.3
    assert found["correlated"] > found["without"] + 0.3
