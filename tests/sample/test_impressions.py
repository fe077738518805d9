"""Impressions against the rows they come from."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from recsys.columns import FIRST_ID, ITEM, POSITION, SPLIT, TEST, TRAIN, USER, VALID, label
from recsys.dataset import Dataset
from recsys.errors import InputError
from recsys.sample import impressions

NAN = float("nan")
ROWS = [  # user, item, split, click, like
    (2, 5, TRAIN, 0.0, NAN),
    (2, 6, TRAIN, 1.0, 0.0),
    (2, 7, VALID, 0.0, NAN),
    (4, 8, TRAIN, 0.0, NAN),
    (4, 8, TEST, 0.0, NAN),
    (2, 9, TRAIN, 0.0, NAN),  # an append brings more of user 2
    (2, 5, TRAIN, 1.0, 1.0),
    (4, 5, TRAIN, 0.0, NAN),
]


@pytest.mark.parametrize("segments", [1, 2, 8])
def test_shown_and_not_taken_in_training(segments: int, make_dataset: Callable[..., Dataset]) -> None:
    schema = {USER: pl.Int32, ITEM: pl.Int32, SPLIT: pl.Int8, label("click"): pl.Float32, label("like"): pl.Float32}
    examples = pl.DataFrame(ROWS, schema, orient="row").with_columns(pl.lit(0, pl.Int32).alias(POSITION))
    data = make_dataset([[5], [6], [7]], num_items=12, examples=examples, segments=segments)
    found = {task: impressions(data, task) for task in ("click", "like")}
    lists = {task: [part.tolist() for part in np.split(of.item_E, of.offset_U1[1:-1])] for task, of in found.items()}
    assert lists["click"] == [[], [], [5, 9], [], [8, 5]]
    assert lists["like"] == [[], [], [6], [], []]
    assert len(found["click"]) == 3 + FIRST_ID
    with pytest.raises(InputError, match=r"no task 'buy': choose one of \['click', 'like'\]"):
        impressions(data, "buy")
