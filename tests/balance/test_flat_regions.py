"""Shapes: T = tasks, B = examples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conflicting import problem
from torch import Tensor, nn
from torch.nn import functional

from recsys.balance.fixed import Fixed
from recsys.balance.flat_regions import FlatRegions, ascent, difference, moved

BOTH = pytest.mark.parametrize("aggregate", ["mean", "pcgrad"])
NOT_USED = torch.Generator()


def gradient_at(theta: Tensor) -> Tensor:
    return torch.stack([4 * theta[0], theta[1]])


def test_hand_worked_steps() -> None:
    """L = (4 x^2 + y^2) / 2 at (1, 1): gradient [4, 1] of length 4.1231, and what changes a step of .1 along it."""
    here = [torch.tensor([4.0, 1.0])]
    (step,) = ascent(here, 0.1)
    assert step is not None
    assert step.tolist() == pytest.approx([0.0970, 0.0243], abs=1e-4)
    (flat,) = difference([gradient_at(torch.ones(2) + step)], here)
    assert flat is not None
    assert flat.tolist() == pytest.approx([0.3881, 0.0243], abs=1e-4)


@BOTH
def test_hand_worked_gradient(aggregate: Any) -> None:
    theta = nn.Parameter(torch.ones(2))
    balance = FlatRegions(rho=0.1, aggregate=aggregate).build({"click": 1.0})
    terms = balance(lambda: (theta.square() * torch.tensor([4.0, 1.0])).sum()[None] / 2, [theta], [], NOT_USED)
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx([4.3881, 1.0243], abs=1e-4)
    assert terms["loss"] == 2.5
    # .5 * (4 * 1.0970^2 + 1.0243^2) - 2.5, from the unrounded step
    assert terms["sharpness/click"].item() == pytest.approx(0.43141, abs=1e-4)


def quadratics(theta: nn.Parameter) -> Callable[[], Tensor]:
    """Gradients [1, 0] and [0, 1] at the origin; a step of .1 along each changes them by [1, 0] and [-1, 1]."""
    curvature = torch.tensor([[[10.0, 0], [0, 0]], [[0, -10], [-10, 10]]])
    return lambda: theta + torch.einsum("i,tij,j->t", theta, curvature, theta) / 2


def test_low_loss_and_flatness_are_projected_apart() -> None:
    """[1, 0] + [0, 1] do not conflict; [1, 0] and [-1, 1] become [.5, 1.5]. Projecting [2, 0] and [-1, 2] gives [1.6, 2.8]."""
    theta = nn.Parameter(torch.zeros(2))
    balance = FlatRegions(rho=0.1, aggregate="pcgrad").build({"click": 1.0, "like": 1.0})
    balance(quadratics(theta), [theta], [], torch.Generator())
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx([1.5, 2.5])


def test_mean_is_scaled_as_the_sum_of_the_losses() -> None:
    theta = nn.Parameter(torch.zeros(2))
    FlatRegions(rho=0.1).build({"click": 1.0, "like": 1.0})(quadratics(theta), [theta], [], NOT_USED)
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx([1, 2])


def test_own_parameters_have_their_own_step() -> None:
    """Shared x at 1 and own y at 1 under 2 x^2 + y^2 / 2: each moves by .1, whatever the other's gradient."""
    x, y, elsewhere = (nn.Parameter(torch.ones(1)) for _ in range(3))

    def losses() -> Tensor:
        return torch.cat([2 * x**2 + y**2 / 2, elsewhere**2 / 2])

    FlatRegions(rho=0.1).build({"click": 1.0, "like": 1.0})(losses, [x], [y, elsewhere], NOT_USED)
    found = [parameter.grad.item() for parameter in (x, y, elsewhere) if parameter.grad is not None]
    assert found == pytest.approx([4.4, 1.1, 1.1])


@BOTH
def test_every_pass_drops_the_same_units(aggregate: Any) -> None:
    of, masks = problem(tasks=3), []

    def losses() -> Tensor:
        masks.append(functional.dropout(torch.ones(200), 0.5))
        return of.losses()

    balance = FlatRegions(aggregate=aggregate).build({"click": 1.0, "like": 1.0, "share": 1.0})
    for _ in range(2):
        balance(losses, of.shared, of.own, torch.Generator())
    assert len(masks) == 2 * (1 + 3)
    assert all(torch.equal(mask, masks[0]) for mask in masks[:4])
    assert all(torch.equal(mask, masks[4]) for mask in masks[4:])
    assert not torch.equal(masks[0], masks[4])


def test_finite_differences() -> None:
    """The gradient is that of each task's loss at its own moved point, with dropout."""
    of, rho = problem(dtype=torch.float64, dropout=0.3), 0.1
    tensors, step = [*of.shared, *of.own], 1e-6

    def losses() -> Tensor:
        torch.manual_seed(4)
        return of.losses()

    steps = []
    for task in range(2):
        gradient = torch.autograd.grad(losses()[task], tensors, allow_unused=True)
        steps.append([*ascent(gradient[: len(of.shared)], rho), *ascent(gradient[len(of.shared) :], rho)])
    FlatRegions(rho=rho).build({"click": 1.0, "like": 2.0})(losses, of.shared, of.own, NOT_USED)
    for tensor in [of.bottom, of.vectors[0], of.towers[1]]:
        assert tensor.grad is not None
        for place in range(4):
            change = torch.zeros_like(tensor).flatten()
            change[place] = step
            found = 0.0
            for task, weight in ((0, 1.0), (1, 2.0)):
                for sign in (1, -1):
                    with moved(tensors, steps[task]), moved([tensor], [sign * change.view_as(tensor)]):
                        found += sign * weight * losses()[task].item() / (2 * step)
            assert found == pytest.approx(tensor.grad.flatten()[place].item(), abs=1e-6)


def test_an_error_inside_leaves_the_weights_as_they_were() -> None:
    of, calls = problem(), []
    before = [tensor.detach().clone() for tensor in [*of.shared, *of.own]]

    def losses() -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return of.losses()

    with pytest.raises(KeyboardInterrupt):
        FlatRegions().build({"click": 1.0, "like": 1.0})(losses, of.shared, of.own, NOT_USED)
    assert all(torch.equal(tensor, old) for tensor, old in zip([*of.shared, *of.own], before, strict=True))


def test_the_tensor_behind_an_embedding_vector_is_never_written_to() -> None:
    """The loop cuts the graph with `detach`, so the vectors and what autograd keeps of the tables are one memory."""
    table = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = table.exp()  # its backward pass needs its own result
    leaf = found.detach().requires_grad_()
    FlatRegions().build({"click": 1.0})(lambda: leaf.square().sum()[None], [leaf], [], NOT_USED)
    torch.autograd.backward([found], [leaf.grad])
    assert table.grad is not None


@pytest.mark.parametrize("seed", range(3))
def test_ends_where_the_losses_are_flatter(seed: int) -> None:
    """After the same number of steps, a step of `rho` uphill raises the losses less than after fixed weights."""
    tasks, rise = {"click": 1.0, "like": 1.0}, {}
    for name, spec in (("fixed", Fixed()), ("flat", FlatRegions(rho=0.1))):
        of = problem(seed=seed)
        balance = spec.build(tasks)
        optimizer = torch.optim.SGD([of.bottom, *of.own], lr=0.2)
        for _ in range(500):
            optimizer.zero_grad()
            balance(of.losses, [of.bottom], of.own, NOT_USED)
            optimizer.step()
        terms = FlatRegions(rho=0.1).build(tasks)(of.losses, [of.bottom], of.own, NOT_USED)
        rise[name] = sum(terms[f"sharpness/{task}"].item() for task in tasks)
    assert rise["flat"] < rise["fixed"]
