"""Selective synaptic dampening on hand-worked numbers."""

import pytest
import torch

from recsys.continual.dampening import Dampening, importance


def test_only_what_matters_far_more_to_the_forgotten_is_dampened() -> None:
    of_forgotten, of_all = torch.tensor([4.0, 4.0, 20.0]), torch.tensor([0.2, 1.0, 1.0])
    found = Dampening()(torch.full((3,), 2.0), of_all, of_forgotten)
    assert found.tolist() == pytest.approx([2 * 0.05, 2.0, 2 * 0.05])


def test_what_matters_to_nobody_is_left_alone() -> None:
    assert Dampening()(torch.tensor([3.0]), torch.zeros(1), torch.zeros(1)).tolist() == [3.0]


def test_nothing_is_made_larger() -> None:
    found = Dampening(alpha=1, strength=50)(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([2.0]))
    assert found.tolist() == [3.0]


def test_the_importance_is_the_mean_of_the_squares_of_the_batches() -> None:
    batches = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 0.0])}]
    assert importance(batches)["w"].tolist() == [5.0, 2.0]
    assert importance([]) == {}
