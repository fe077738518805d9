"""A world whose exposure is known: users of two countries see items of their taste and popular ones more often.

Shapes: U = users, I = items, X = examples.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from planted_data import write_dataset

from recsys.columns import FIRST_ID, ITEM, POSITION, PROPENSITY, SLOT, SPLIT, TRAIN, USER, label
from recsys.dataset import Dataset


class World(NamedTuple):
    dataset: Dataset
    chance_UI: np.ndarray  # of each item in a row of the user's log
    liked_UI: np.ndarray  # chance that the label is 1
    theta_K: np.ndarray  # chance that a slot is looked at
    user_X: np.ndarray  # from 0 on, as the rows of chance_UI
    item_X: np.ndarray


def make_world(folder: Path, *, users: int = 120, items: int = 30, rows: int = 60, slots: int = 4, seed: int = 1) -> World:
    """Label `rating` says what the user thinks of the item, `click` is 1 where he also looked at the slot, `arm` is a coin."""
    rng = np.random.default_rng(seed)
    country_U, genre_I = rng.integers(2, size=users), rng.integers(2, size=items)
    match_UI = country_U[:, None] == genre_I
    popularity_I = 1 / np.arange(1.0, items + 1)
    mass_UI = popularity_I * np.where(match_UI, 3.0, 1.0)
    chance_UI = mass_UI / mass_UI.sum(1, keepdims=True)
    liked_UI = np.where(match_UI, 0.7, 0.2) + 0.25 * (popularity_I / popularity_I.max() - 0.5)
    liked_UI = np.clip(liked_UI, 0.02, 0.98)
    user_X = np.repeat(np.arange(users), rows)
    item_X = np.array([rng.choice(items, p=chance_UI[user]) for user in user_X])
    slot_X = rng.integers(slots, size=len(user_X))
    theta_K = np.arange(1.0, slots + 1) ** -0.7
    rating_X = rng.random(len(user_X)) < liked_UI[user_X, item_X]
    click_X = rating_X & (rng.random(len(user_X)) < theta_K[slot_X])
    examples = pl.DataFrame(
        {
            USER: (user_X + FIRST_ID).astype(np.int32),
            ITEM: (item_X + FIRST_ID).astype(np.int32),
            POSITION: np.zeros(len(user_X), np.int32),
            SPLIT: np.full(len(user_X), TRAIN, np.int8),
            SLOT: slot_X.astype(np.int32),
            PROPENSITY: chance_UI[user_X, item_X].astype(np.float32),
            label("click"): click_X.astype(np.float32),
            label("rating"): rating_X.astype(np.float32),
            label("arm"): (rng.random(len(user_X)) < 0.5).astype(np.float32),
        }
    )
    features: dict[str, Any] = {
        "country": ("user", [1, 1, *(country_U + FIRST_ID).tolist()]),
        "genre": ("item", [1, 1, *(genre_I + FIRST_ID).tolist()]),
    }
    timelines = [[FIRST_ID]] * users
    data = write_dataset(folder, timelines, num_items=items + FIRST_ID, examples=examples, features=features)
    return World(data, chance_UI, liked_UI, theta_K, user_X, item_X)


def built(spec: Any, **settings: Any) -> Any:
    """A spec with its defaults; what has none is filled in by type."""
    fill = {float: 0.5, str: "arm", int: 1}
    needed = {name: fill[field.annotation] for name, field in spec.model_fields.items() if field.is_required()}
    return spec(**needed | settings)
