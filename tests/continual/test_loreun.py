"""LoReUn's weights, and how far unlearning goes, on hand-worked numbers."""

import pytest
import torch

from recsys.continual.loreun import LoReUn, shortfall


def test_the_easiest_examples_get_most_of_the_effort() -> None:
    found = LoReUn(tau=1)(torch.tensor([0.1, 1.0, 3.0]))
    assert found.tolist() == pytest.approx([2.0526, 0.8345, 0.1129], abs=1e-4)


def test_the_median_loss_is_the_temperature_unless_one_is_given() -> None:
    loss_B = torch.tensor([0.5, 2.0, 4.0])
    assert LoReUn()(loss_B).tolist() == pytest.approx(LoReUn(tau=2)(loss_B).tolist())


def test_large_losses_leave_weights_of_mean_one_and_no_gradient() -> None:
    loss_B = torch.tensor([900.0, 901.0], requires_grad=True)
    found = LoReUn(tau=1)(loss_B)
    assert found.mean().item() == pytest.approx(1)
    assert not found.requires_grad


def test_a_loss_at_its_level_is_left_there() -> None:
    assert shortfall(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 2.0, 2.0])).tolist() == [1.0, 0.0, 0.0]
