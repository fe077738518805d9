"""Shapes: B = examples, T = tasks."""

import math

import pytest
import torch

from recsys.heads.binary import binary_loss


def test_hand_worked_numbers() -> None:
    logit_BT = torch.tensor([[0.0, 2.0], [-1.0, 2.0]])
    loss_BT, exists_BT = binary_loss(logit_BT, torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    expected = [[math.log(2), 2 + math.log1p(math.exp(-2))], [1 + math.log1p(math.exp(-1)), math.log1p(math.exp(-2))]]
    torch.testing.assert_close(loss_BT, torch.tensor(expected))
    assert loss_BT[0].tolist() == pytest.approx([0.6931, 2.1269], abs=1e-4)
    assert exists_BT.all()


def test_a_label_that_does_not_exist_has_no_loss_and_no_gradient() -> None:
    logit_BT = torch.tensor([[3.0, -2.0], [0.5, 40.0]], requires_grad=True)
    loss_BT, exists_BT = binary_loss(logit_BT, torch.tensor([[float("nan"), 1.0], [0.0, float("nan")]]))
    loss_BT.sum().backward()
    assert exists_BT.tolist() == [[False, True], [True, False]]
    assert loss_BT.detach()[~exists_BT].tolist() == [0, 0]
    assert logit_BT.grad is not None
    assert logit_BT.grad[~exists_BT].tolist() == [0, 0]
    torch.testing.assert_close(
        logit_BT.grad[exists_BT], torch.tensor([torch.tensor(-2.0).sigmoid() - 1, torch.tensor(0.5).sigmoid()])
    )


def test_extreme_logits_stay_finite() -> None:
    loss_BT, _ = binary_loss(torch.tensor([[500.0, -500.0]]), torch.tensor([[0.0, 1.0]]))
    assert loss_BT.tolist() == [[500, 500]]
