"""Shapes: T = tasks, B = examples."""

import math

import pytest
import torch
from conflicting import problem
from torch import Tensor, nn

from recsys.balance.uncertainty import Uncertainty


def test_hand_worked_numbers() -> None:
    """L = 2 at v = -.5: 2 / (2 exp -.5) - .25 = 1.3987; dv = (1 - 2 exp .5) / 2 = -1.1487; the loss is multiplied by .8244."""
    x = nn.Parameter(torch.tensor(2.0))
    balance = Uncertainty().build({"click": 1.0})
    terms = balance(lambda: x[None] * 1, [x], [], torch.Generator())
    (v_T,) = balance.parameters()
    assert terms["loss"].item() == pytest.approx(1.3987, abs=1e-4)
    assert terms["loss/click"] == 2
    assert terms["weight/click"].item() == pytest.approx(0.8244, abs=1e-4)
    assert x.grad is not None
    assert v_T.grad is not None
    assert x.grad.item() == pytest.approx(0.8244, abs=1e-4)
    assert v_T.grad.item() == pytest.approx(-1.1487, abs=1e-4)


def test_finite_differences() -> None:
    of = problem(tasks=3, dtype=torch.float64)
    weights = {"click": 1.0, "like": 0.5, "share": 3.0}
    balance = Uncertainty(initial=0.3).build(weights).double()
    balance(of.losses, of.shared, of.own, torch.Generator())
    tensors = [of.bottom, of.vectors[1], of.towers[0], *balance.parameters()]
    gradients = [tensor.grad.clone() for tensor in tensors if tensor.grad is not None]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        for place in range(min(tensor.numel(), 5)):
            change = torch.zeros_like(tensor).flatten()
            change[place] = 1e-5
            change, totals = change.view_as(tensor), []
            for sign in (1, -1):
                with torch.no_grad():
                    tensor += sign * change
                totals.append(balance(of.losses, of.shared, of.own, torch.Generator())["loss"])
                with torch.no_grad():
                    tensor -= sign * change
            assert ((totals[0] - totals[1]) / 2e-5).item() == pytest.approx(gradient.flatten()[place].item(), abs=1e-6)


def test_at_the_optimum_the_variance_is_the_loss_and_the_weight_is_cancelled() -> None:
    loss_T = torch.tensor([0.2, 3.0])
    balance = Uncertainty().build({"click": 1.0, "like": 5.0})
    x = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        terms = balance(lambda: x * loss_T, [x], [], torch.Generator())
        optimizer.step()
    (v_T,) = balance.parameters()
    assert v_T.tolist() == pytest.approx([math.log(0.2), math.log(15)], abs=1e-2)
    assert terms["weight/click"].item() == pytest.approx(1 / (2 * 0.2), rel=1e-2)
    assert terms["weight/like"].item() == pytest.approx(1 / (2 * 3), rel=1e-2)


def test_the_form_for_classification_is_this_one_shifted_by_log_2() -> None:
    for loss, v in ((0.1, -2.0), (0.7, 0.3), (4.0, 1.0)):
        shifted = v + math.log(2)
        assert loss / math.exp(shifted) + shifted / 2 - math.log(2) / 2 == pytest.approx(loss / (2 * math.exp(v)) + v / 2)


def test_a_batch_without_a_tasks_labels_leaves_its_weight() -> None:
    of = problem()
    of.label_BT[:, 1] = torch.nan
    balance = Uncertainty().build({"click": 1.0, "like": 1.0})
    balance(of.losses, of.shared, of.own, torch.Generator())
    (v_T,) = balance.parameters()
    assert v_T.grad is not None
    assert v_T.grad[0] != 0
    assert v_T.grad[1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_noisier_task_gets_the_lower_weight(seed: int) -> None:
    """Two linear regressions of noise .2 and 2: the learned variances are in that order, and near the losses."""
    generator = torch.Generator().manual_seed(seed)
    input_BD = torch.randn(500, 4, generator=generator)
    noise_BT = torch.randn(500, 2, generator=generator) * torch.tensor([0.2, 2.0])
    target_BT = input_BD @ torch.randn(4, 2, generator=generator) + noise_BT
    weight_DT = nn.Parameter(torch.zeros(4, 2))
    balance = Uncertainty().build({"click": 1.0, "like": 1.0})
    optimizer = torch.optim.Adam([weight_DT, *balance.parameters()], lr=0.05)

    def losses() -> Tensor:
        return (input_BD @ weight_DT - target_BT).square().mean(0)

    for _ in range(400):
        optimizer.zero_grad()
        terms = balance(losses, [weight_DT], [], generator)
        optimizer.step()
    (v_T,) = balance.parameters()
    assert terms["weight/click"] > terms["weight/like"]
    torch.testing.assert_close(v_T.detach().exp(), losses().detach(), rtol=0.1, atol=0)
