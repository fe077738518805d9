"""How visible items were, by hand, and pools of items. Shapes: I = rows of the item table, F = features."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from torch import Generator

from recsys.columns import ITEM, POSITION, SLOT, SPLIT, TEST, TRAIN, USER, label
from recsys.dataset import Dataset
from recsys.sample import Catalogue, Uniform, exposure
from recsys.sample.negatives import Negatives

NUM_ITEMS = 6  # four real ones


def examples(slots: list[int] | None) -> pl.DataFrame:
    """Item 2 is shown three times, 3 once, 4 only after training and 5 never."""
    columns = {USER: [2, 2, 2, 2, 2], ITEM: [2, 2, 2, 3, 4], POSITION: [0] * 5, SPLIT: [TRAIN] * 4 + [TEST]}
    types = {USER: pl.Int32, ITEM: pl.Int32, POSITION: pl.Int32, SPLIT: pl.Int8}
    if slots is not None:
        columns[SLOT], types[SLOT] = slots, pl.Int32
    return pl.DataFrame(columns, types).with_columns(pl.lit(0.0, pl.Float32).alias(label("click")))


def standardised(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / deviation for value in values]


def test_exposure_by_hand(make_dataset: Callable[..., Dataset]) -> None:
    data = make_dataset([[2, 2, 3, 4]], num_items=NUM_ITEMS, splits=[[TRAIN] * 4], examples=examples([0, 1, -1, 4, 0]))
    found_IF = exposure(data)
    taken = standardised([math.log(3), math.log(2), math.log(2), 0])
    shown = standardised([math.log(4), math.log(2), 0, 0])
    slot = standardised([0.5, 4, 5 / 3, 5 / 3])  # of items without a known place: the mean of all that are known
    np.testing.assert_allclose(found_IF[2:], np.stack([taken, shown, slot], axis=1), atol=1e-6)
    assert not found_IF[:2].any()
    assert found_IF.dtype == np.float32


@pytest.mark.parametrize(("slots", "features"), [(None, 2), ([-1] * 5, 2), ([0] * 5, 3)])
def test_what_the_log_does_not_know_is_left_out(
    make_dataset: Callable[..., Dataset], slots: list[int] | None, features: int
) -> None:
    data = make_dataset([[2, 2, 3, 4]], num_items=NUM_ITEMS, splits=[[TRAIN] * 4], examples=examples(slots))
    found_IF = exposure(data)
    assert found_IF.shape == (NUM_ITEMS, features)
    assert np.isfinite(found_IF).all(), "a feature that is the same for all items"


def test_a_log_of_clicks_alone_has_their_number(make_dataset: Callable[..., Dataset]) -> None:
    assert exposure(make_dataset([[2, 2, 3, 4]], num_items=NUM_ITEMS, splits=[[TRAIN] * 4])).shape == (NUM_ITEMS, 1)


def test_the_catalogue_is_every_item_once() -> None:
    item_S, log_S, log_N = Catalogue().build(torch.ones(7))(torch.tensor([1, 4]), Generator())
    assert item_S.tolist() == [2, 3, 4, 5, 6]
    assert log_S.tolist() == [0] * 5
    assert log_N.tolist() == [-math.inf, 0]


def test_each_item_once_and_how_likely_it_is_there() -> None:
    drawn = Negatives(torch.tensor([7, 3, 7, 3, 9]), torch.tensor([0.7, -1, 0.7, -1, -6]), torch.tensor([-1.0, -math.inf]))
    item_S, log_S, log_N = drawn.distinct()
    assert item_S.tolist() == [3, 7, 9]
    assert log_S.exp().tolist() == pytest.approx([1 - math.exp(-math.exp(x)) for x in (-1, 0.7, -6)], rel=1e-4)
    assert log_N.exp().tolist() == pytest.approx([1 - math.exp(-math.exp(-1)), 0])


def test_draws_without_a_repetition_stay_as_they_are() -> None:
    drawn = Catalogue().build(torch.ones(7))(torch.tensor([4]), Generator())
    assert drawn.distinct() is drawn


def test_an_item_is_there_as_often_as_said() -> None:
    sampler, there_I = Uniform(count=6).build(torch.ones(10)), torch.zeros(10)
    generator, rounds = Generator().manual_seed(0), 4000
    for _ in range(rounds):
        drawn = sampler(torch.tensor([2]), generator).distinct()
        there_I[drawn.item_S] += 1
    expected = 1 - math.exp(-6 / 8)
    assert there_I[2:].mean().item() / rounds == pytest.approx(expected, rel=0.06)  # exactly 1 - (7/8)^6: 0.551, not 0.528
