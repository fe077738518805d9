"""A log for policies: a bandit that showed every item with the same chance, and whose users' clicks are known."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from planted_data import BLOCK_ITEMS, BLOCKS, NUM_ITEMS, leave_one_out, planted_config, write_dataset

from recsys.columns import FIRST_ID, ITEM, POSITION, PROPENSITY, SPLIT, TIME_MS, USER, label
from recsys.config import RunConfig
from recsys.dataset import Dataset

OURS, OTHERS = 0.9, 0.05  # how often an item of the user's own block is clicked, and another
WEAK = {"epochs": 1, "embedding_learning_rate": 0.05, "batch_size": 16}  # a parent that has much to learn
FIT = {"learning_rate": 1e-3, "embedding_learning_rate": 0.02, "epochs": 3, "batch_size": 16}
SCHEMA = {
    USER: pl.Int32, ITEM: pl.Int32, POSITION: pl.Int32, TIME_MS: pl.Int64, SPLIT: pl.Int8, label("click"): pl.Float32,
    label("like"): pl.Float32, PROPENSITY: pl.Float32,
}  # fmt: skip
EVENTS = {
    "path": "-", "user": "u", "item": "i", "labels": {"click": "c = 1", "like": "l = 1"}, "propensity": "p",
}  # fmt: skip


def block_of(user: int) -> int:
    return (user - FIRST_ID) % BLOCKS


def write_bandit(folder: Path, *, users: int = 120, shown: int = 24, seed: int = 0) -> Dataset:
    """Users are shown `shown` items each, drawn evenly; what they click is their timeline. Every second click is liked."""
    rng, timelines, rows = np.random.default_rng(seed), [], []
    for user in range(FIRST_ID, users + FIRST_ID):
        item_R = rng.integers(FIRST_ID, NUM_ITEMS, shown)
        ours_R = (item_R - FIRST_ID) // BLOCK_ITEMS == block_of(user)
        click_R = rng.random(shown) < np.where(ours_R, OURS, OTHERS)
        click_R[:4] = True  # a past to begin from
        item_R[:4] = FIRST_ID + block_of(user) * BLOCK_ITEMS + rng.choice(BLOCK_ITEMS, 4, replace=False)
        timeline = item_R[click_R].tolist()
        split_E = leave_one_out(len(timeline))
        timelines.append(timeline)
        place_R = np.cumsum(click_R) - click_R
        for item, click, place in zip(item_R.tolist(), click_R.tolist(), place_R.tolist(), strict=True):
            split = split_E[min(place, len(split_E) - 1)]
            rows.append((user, item, place, place, split, float(click), float(click and item % 2), 1 / (NUM_ITEMS - FIRST_ID)))
    return write_dataset(folder, timelines, examples=pl.DataFrame(rows, SCHEMA, orient="row"))


def policy_config(policy: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    """The planted config with a weak retriever, and a policy whose steps are large enough for a small world."""
    part = {"fit": FIT, **(policy or {})}
    part["fit"] = {**FIT, **part["fit"]}
    config = planted_config(WEAK, policy=part, **{"data": {"events": EVENTS}, **sections})
    encoder = config.retriever.encoder.model_copy(update={"dropout": 0.3})
    return config.model_copy(update={"retriever": config.retriever.model_copy(update={"encoder": encoder})})
