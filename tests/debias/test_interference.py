"""Weights of an A/B test's rows: numbers by hand, what they promise of the weighted log, and where gradients stop."""

import pytest
import torch
from torch import Tensor

from recsys.debias.estimate import Rows
from recsys.debias.interference import ArmWeights, Interference


def rows_of(vector_BV: Tensor, arm_B: Tensor | None, loss_BT: Tensor | None = None) -> Rows:
    loss_BT = torch.ones(len(vector_BV), 1) if loss_BT is None else loss_BT
    propensity_B = torch.full((len(vector_BV),), torch.nan)
    return Rows(torch.zeros_like(loss_BT), torch.ones_like(loss_BT), loss_BT, vector_BV, propensity_B, step=0, arm_B=arm_B)


def trained(module: ArmWeights, rows: Rows, steps: int = 400) -> ArmWeights:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(steps):
        own = module(rows).own
        assert own is not None
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    return module


def videos() -> Rows:
    """Of 50 rows an arm, 30 of arm 1 and 10 of arm 0 are short, 20 and 40 long; one-hot vectors (short, long)."""
    short_B = torch.tensor([1.0] * 40 + [0.0] * 60)
    arm_B = torch.tensor([1.0] * 30 + [0.0] * 10 + [1.0] * 20 + [0.0] * 40)
    return rows_of(torch.stack([short_B, 1 - short_B], dim=1), arm_B)


def test_weights_by_hand() -> None:
    chance_B = torch.tensor([0.75, 1 / 3], dtype=torch.float64)
    assert Interference(arm_label="arm", train=1)(chance_B).tolist() == pytest.approx([1.5, 0.666667], abs=1e-6)
    assert Interference(arm_label="arm", train=0)(chance_B).tolist() == pytest.approx([0.5, 1.333333], abs=1e-6)
    assert Interference(arm_label="arm", train=1, share=0.2)(chance_B).tolist() == pytest.approx([3.75, 1.666667], abs=1e-6)
    assert Interference(arm_label="arm", train=0, share=0.2)(chance_B).tolist() == pytest.approx([0.3125, 0.833333], abs=1e-6)


@pytest.mark.parametrize(("train", "weights", "short_share"), [(1, (1.5, 2 / 3), 0.6), (0, (0.5, 4 / 3), 0.2)])
def test_the_weighted_log_is_that_of_the_arm_alone(train: int, weights: tuple[float, float], short_share: float) -> None:
    """The classifier finds .75 and 1/3 by itself, so 60 % of arm 1's weighted log is short as of its own rows, not 40 %."""
    torch.manual_seed(1)
    rows = videos()
    estimate = trained(Interference(arm_label="arm", train=train, hidden=0).build(2, 1), rows)(rows)
    weight_B = estimate.weight_BT[:, 0]
    assert weight_B[[0, 99]].tolist() == pytest.approx(weights, abs=0.01)
    assert (weight_B[:40].sum() / weight_B.sum()).item() == pytest.approx(short_share, abs=0.005)
    assert weight_B.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_begins_as_plain_pooling_and_stays_near_it_when_both_arms_are_the_same(share: float) -> None:
    torch.manual_seed(2)
    vector_BV, arm_B = torch.randn(4000, 3), (torch.rand(4000) < share).float()
    rows = rows_of(vector_BV, arm_B)
    module = Interference(arm_label="arm", train=1, share=share, hidden=0).build(3, 1)
    assert torch.allclose(module(rows).weight_BT, torch.ones(4000, 1), atol=0.01)
    assert (trained(module, rows)(rows).weight_BT - 1).abs().mean() < 0.1


def test_gradients_stop_on_both_sides() -> None:
    """The classifier's loss reaches its own parameters alone; the model's loss reaches none of them."""
    table_BV, loss_BT = torch.randn(100, 2, requires_grad=True), torch.rand(100, 1, requires_grad=True)
    module = Interference(arm_label="arm", train=1).build(2, 1)
    estimate = module(rows_of(table_BV * 2, videos().arm_B, loss_BT))
    assert not estimate.weight_BT.requires_grad
    (estimate.loss_BT * estimate.weight_BT).sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert table_BV.grad is None
    before = loss_BT.grad.clone()
    estimate.own.backward()
    assert table_BV.grad is None
    assert torch.equal(loss_BT.grad, before)
    assert module.log_ratio[-1].weight.grad.abs().sum().item() > 0


def test_rows_of_no_arm_are_weighted_but_do_not_teach() -> None:
    torch.manual_seed(3)
    known, arm_B = videos(), videos().arm_B.clone()
    arm_B[:20] = torch.nan
    module = Interference(arm_label="arm", train=1).build(2, 1)
    partly = module(rows_of(known.vector_BV, arm_B)).own
    rest = module(rows_of(known.vector_BV[20:], arm_B[20:])).own
    assert partly.item() == pytest.approx(rest.item(), abs=1e-6)
    nobody = module(rows_of(known.vector_BV, torch.full((100,), torch.nan)))
    assert nobody.own.item() == 0
    assert torch.isfinite(nobody.weight_BT).all()
