"""Kernel-based balancing: numbers by hand, planted selection that the weights undo, and where gradients stop."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from recsys.debias.causal_balancing import BalancedWeights, CausalBalancing, coefficients, entropy, hinges, kernels
from recsys.debias.estimate import Pairs, Rows


def spec_of(**settings: Any) -> CausalBalancing:
    return CausalBalancing(**settings)


def rows_of(vector_BV: Tensor, pair_PV: Tensor, propensity_B: Tensor | None = None, loss_BT: Tensor | None = None) -> Rows:
    loss_BT = torch.ones(len(vector_BV), 1) if loss_BT is None else loss_BT
    propensity_B = torch.ones(len(vector_BV)) if propensity_B is None else propensity_B
    pairs = Pairs(torch.zeros(len(pair_PV), 1), pair_PV)
    return Rows(torch.zeros_like(loss_BT), torch.ones_like(loss_BT), loss_BT, vector_BV, propensity_B, step=0, pairs=pairs)


def test_numbers_by_hand() -> None:
    """Centre 0, all pairs {0, 1}, log {0, 1} with weights 1.2 and .9: means .952419 and 1.007177, 0.044758 beyond the slack."""
    x_BV, weight_B = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([1.2, 0.9], dtype=torch.float64)
    row_JB, pair_JP = kernels(x_BV[:1], x_BV, x_BV, "gaussian", 0.05)  # the mean squared distance is .5, so this is exp(-.1 d²)
    of_all, of_log = pair_JP.mean(1), (row_JB * weight_B).mean(1)
    assert (of_all.item(), of_log.item()) == pytest.approx((0.952419, 1.007177), abs=1e-6)
    assert hinges(of_all - of_log, 0.01).item() == pytest.approx(0.044758, abs=1e-6)
    assert entropy(weight_B).mean().item() == pytest.approx(0.061981, abs=1e-6)
    assert entropy(torch.zeros(1)).item() == 0


def test_exponential_kernel_is_of_the_distance_itself() -> None:
    x_BV = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    _, pair_JP = kernels(x_BV[:1], x_BV, x_BV, "exponential", 4 / 3)  # mean distance 4/3
    assert pair_JP[0].tolist() == pytest.approx([1, 0.367879, 0.049787], abs=1e-6)


def test_opposite_gaps_do_not_cancel() -> None:
    assert hinges(torch.tensor([0.5, -0.5]), 0.1).tolist() == pytest.approx([0.4, 0.4])


def planted(rows: int, generator: torch.Generator) -> tuple[Rows, Tensor]:
    """Pairs lie evenly around 0 in two dimensions; the log prefers those with a large first number, as exp(x) would."""
    pair_PV = torch.randn(rows, 2, generator=generator)
    vector_BV = torch.randn(rows, 2, generator=generator) + torch.tensor([1.0, 0.0])  # density times exp(x), which is a shift
    true_weight_B = torch.exp(0.5 - vector_BV[:, 0])
    return rows_of(vector_BV, pair_PV, loss_BT=vector_BV[:, :1].abs()), true_weight_B


def trained(module: BalancedWeights, generator: torch.Generator, steps: int = 300) -> BalancedWeights:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        own = module(planted(256, generator)[0]).own
        assert own is not None
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    return module


@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
@pytest.mark.parametrize("centres", ["random", "adaptive", "worst_case"])
def test_planted_selection_is_balanced(centres: str, kernel: str) -> None:
    """After training the weighted log has the kernel means of all pairs, on fresh draws and with centres of its own."""
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    module = trained(spec_of(centres=centres, kernel=kernel).build(2, 1), generator)
    rows, true_weight_B = planted(4000, generator)
    weight_B = module(rows).weight_BT[:, 0]
    kernel_JB, kernel_JP = kernels(torch.randn(50, 2, generator=generator), rows.vector_BV, rows.pairs.vector_PV, kernel, 1.0)
    before = (kernel_JP.mean(1) - kernel_JB.mean(1)).abs().mean()
    after = (kernel_JP.mean(1) - (kernel_JB * weight_B).mean(1)).abs().mean()
    assert after < 0.2 * before
    assert weight_B.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.corrcoef(torch.stack([weight_B.log(), true_weight_B.log()]))[0, 1] > 0.8


def test_adaptive_centres_stand_where_the_error_is() -> None:
    """The error of the model is a bump around one of the pairs: its coefficient is the largest."""
    generator = torch.Generator().manual_seed(2)
    centre_JV, row_BV = torch.linspace(-4, 4, 9)[:, None], torch.randn(2000, 1, generator=generator) * 3
    kernel_JB, kernel_JJ = kernels(centre_JV, row_BV, centre_JV, "gaussian", 10.0)
    error_B = kernel_JB[6] + 0.01 * torch.randn(2000, generator=generator)
    assert coefficients(kernel_JB, kernel_JJ, torch.ones(2000), error_B).abs().argmax().item() == 6


def test_begins_as_inverse_propensity() -> None:
    generator = torch.Generator().manual_seed(3)
    rows, _ = planted(100, generator)
    propensity_B = torch.linspace(0.1, 1, 100)
    estimate = spec_of().build(2, 1)(replace(rows, propensity_B=propensity_B, scale=0.5))
    assert torch.allclose(estimate.weight_BT[:, 0], 0.5 / propensity_B, rtol=0.01)
    assert estimate.loss_PT is None


def test_with_a_limit_of_1_it_stays_inverse_propensity_after_training() -> None:
    generator = torch.Generator().manual_seed(4)
    module = trained(spec_of(limit=1).build(2, 1), generator, steps=20)
    assert torch.equal(module(planted(50, generator)[0]).weight_BT, torch.ones(50, 1))


def test_imputation_makes_it_doubly_robust_with_the_balanced_weights() -> None:
    """Same losses, pairs' part and own loss as `doubly_robust` at the weights that balance; its imputer learns, too."""
    torch.manual_seed(7)
    rows, _ = planted(64, torch.Generator().manual_seed(7))
    rows = replace(rows, logit_BT=torch.ones(64, 1))  # at 0 the loss would be the same with every label
    module = spec_of(imputation=1).build(2, 1)
    with torch.no_grad():
        module.network[-1].weight.normal_()
    estimate, plain = module(rows), spec_of().build(2, 1)
    plain.load_state_dict(module.state_dict(), strict=False)
    weight_BT = plain(rows).weight_BT
    assert weight_BT.std() > 0.1
    robust = module.estimate(replace(rows, propensity_B=1 / weight_BT[:, 0]))
    assert torch.allclose(estimate.weight_BT, weight_BT)
    assert torch.equal(estimate.loss_PT, robust.loss_PT)
    assert torch.allclose(estimate.loss_BT, robust.loss_BT)
    assert not torch.equal(estimate.loss_BT, rows.loss_BT)
    estimate.own.backward()
    assert module.estimate.imputer[-1].weight.grad.abs().sum().item() > 0


def test_refuses_a_propensity_that_is_not_of_rows() -> None:
    with pytest.raises(ValidationError, match="examination is about clicks"):
        spec_of(propensity={"kind": "examination"})


def test_gradients_stop_on_both_sides() -> None:
    generator = torch.Generator().manual_seed(5)
    rows, _ = planted(100, generator)
    leaf_BV, pair_PV = rows.vector_BV.clone().requires_grad_(), rows.pairs.vector_PV.clone().requires_grad_()
    loss_BT = rows.loss_BT.clone().requires_grad_()
    module = spec_of().build(2, 1)
    estimate = module(rows_of(leaf_BV * 2, pair_PV * 2, loss_BT=loss_BT))
    assert not estimate.weight_BT.requires_grad
    (estimate.loss_BT * estimate.weight_BT).sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    before = loss_BT.grad.clone()
    estimate.own.backward()
    assert leaf_BV.grad is None
    assert pair_PV.grad is None
    assert torch.equal(loss_BT.grad, before)
    assert module.network[-1].weight.grad.abs().sum().item() > 0


@pytest.mark.parametrize("rows", [1, 2])
def test_the_smallest_batches_are_finite(rows: int) -> None:
    generator = torch.Generator().manual_seed(6)
    for centres in ("random", "adaptive", "worst_case"):
        estimate = spec_of(centres=centres).build(2, 1)(planted(rows, generator)[0])
        assert torch.isfinite(estimate.own)
        assert torch.isfinite(estimate.weight_BT).all()
