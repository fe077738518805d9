"""Shapes: T = tasks, P = elements of the shared vector."""

import pytest
import torch
from conflicting import Problem, problem
from torch import Tensor, nn

from recsys.balance.fixed import Fixed
from recsys.balance.gradients import gram, task_gradients
from recsys.balance.pcgrad import PCGrad, without_conflicts

TASKS = {"click": 1.0, "like": 1.0}


def test_hand_worked_numbers() -> None:
    """g1 = [1, 0] and g2 = [-1, 1] become [.5, .5] and [0, 1]. The vector is in two pieces: a parameter and an embedding."""
    dense, vector = nn.Parameter(torch.zeros(1)), torch.zeros(1, 1, requires_grad=True)

    def losses() -> Tensor:
        return torch.stack([dense.sum(), vector.sum() - dense.sum()])

    terms = PCGrad().build(TASKS)(losses, [dense, vector], [], torch.Generator())
    assert dense.grad is not None
    assert vector.grad is not None
    assert [dense.grad.item(), vector.grad.item()] == pytest.approx([0.5, 1.5])
    assert terms["conflicting_share"] == 1


def test_a_weight_multiplies_before_the_projection() -> None:
    """2 * [1, 0] off [-1, 1] is [1, 1]; [-1, 1] off [2, 0] is [0, 1]: together [1, 2]."""
    theta = nn.Parameter(torch.zeros(2))
    PCGrad().build({"click": 2.0, "like": 1.0})(
        lambda: torch.stack([theta[0], theta[1] - theta[0]]), [theta], [], torch.Generator()
    )
    assert theta.grad is not None
    assert theta.grad.tolist() == pytest.approx([1, 2])


def test_agreeing_tasks_are_added_up() -> None:
    theta = nn.Parameter(torch.zeros(2))
    terms = PCGrad().build(TASKS)(lambda: torch.stack([theta[0], theta.sum()]), [theta], [], torch.Generator())
    assert theta.grad is not None
    assert theta.grad.tolist() == [2, 1]
    assert terms["conflicting_share"] == 0


def test_own_parameters_are_not_projected() -> None:
    projected, plain = problem(tasks=3), problem(tasks=3)
    weights = {"click": 1.0, "like": 0.5, "share": 3.0}
    PCGrad().build(weights)(projected.losses, projected.shared, projected.own, torch.Generator())
    Fixed().build(weights)(plain.losses, plain.shared, plain.own, torch.Generator())
    for found, expected in zip(projected.own, plain.own, strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


@pytest.mark.parametrize("seed", range(5))
def test_equals_projecting_whole_vectors(seed: int) -> None:
    """Worked out on inner products or on the vectors themselves: the same, for the same order of the tasks."""
    gradient_TP = torch.randn(5, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = torch.Generator().manual_seed(seed)
    expected_P = torch.zeros(9, dtype=torch.float64)
    for i, gradient_P in enumerate(gradient_TP):
        left_P = gradient_P.clone()
        for j in torch.randperm(5, generator=order).tolist():
            if j != i and left_P @ gradient_TP[j] < 0:
                left_P = left_P - (left_P @ gradient_TP[j]) / gradient_TP[j].square().sum() * gradient_TP[j]
        expected_P += left_P
    weights = without_conflicts(gradient_TP @ gradient_TP.T, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(torch.tensor(weights, dtype=torch.float64) @ gradient_TP, expected_P)


def test_the_order_is_the_generators() -> None:
    gradient_TP = torch.tensor([[1.0, 0, 0], [-1, 1, 0], [-1, -0.5, 1]], dtype=torch.float64)
    gram_TT = gradient_TP @ gradient_TP.T
    found = {tuple(without_conflicts(gram_TT, torch.Generator().manual_seed(seed))) for seed in range(30)}
    assert len(found) > 1


def test_inner_products_by_finite_differences() -> None:
    """<g_a, g_b> is how fast the loss of a grows along the gradient of b. The unused tensor counts as zeros."""
    of = problem(dtype=torch.float64)
    gradients = task_gradients(of.losses(), of.shared)
    gram_TT, step = gram(gradients), 1e-6
    for b in range(2):
        losses = []
        for sign in (step, -step):
            with torch.no_grad():
                for tensor, gradient in zip(of.shared, gradients[b], strict=True):
                    if gradient is not None:
                        tensor += sign * gradient
                losses.append(of.losses())
                for tensor, gradient in zip(of.shared, gradients[b], strict=True):
                    if gradient is not None:
                        tensor -= sign * gradient
        torch.testing.assert_close((losses[0] - losses[1]) / (2 * step), gram_TT[:, b], atol=1e-6, rtol=0)


def conflict(seed: int) -> Problem:
    """A narrow bottom; what raises the odds of one label mostly lowers those of the other."""
    of = problem(seed=seed, dtype=torch.float64)
    of.vectors = [torch.cat(of.vectors, dim=1).detach().requires_grad_()]
    generator = torch.Generator().manual_seed(100 + seed)
    direction_D = torch.randn(5, generator=generator, dtype=torch.float64)
    turned_D = torch.randn(5, generator=generator, dtype=torch.float64) - 1.5 * direction_D
    of.label_BT = (of.vectors[0].detach() @ torch.stack([direction_D, turned_D], dim=1) > 0).double()
    of.bottom = nn.Parameter(0.3 * torch.randn(5, 1, generator=generator, dtype=torch.float64))
    of.towers = [nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2)]
    return of


@pytest.mark.parametrize("seed", range(3))
def test_the_weaker_of_two_conflicting_tasks_is_not_trodden_on(seed: int) -> None:
    """With weights 10 to 1 the sum of the losses raises the weaker task's; PCGrad never goes up for either, to first order."""
    lowest, final = {}, {}
    for name, spec in (("fixed", Fixed()), ("pcgrad", PCGrad())):
        of = conflict(seed)
        balance, lowest[name] = spec.build({"click": 10.0, "like": 1.0}), 0.0
        for _ in range(150):
            gradients = task_gradients(of.losses(), [of.bottom])
            of.bottom.grad = None
            balance(of.losses, [of.bottom], [], torch.Generator().manual_seed(0))
            assert of.bottom.grad is not None
            downhill = [float((of_task[0] * of.bottom.grad).sum()) for of_task in gradients if of_task[0] is not None]
            lowest[name] = min(lowest[name], *downhill)
            with torch.no_grad():
                of.bottom -= 0.02 * of.bottom.grad
        final[name] = of.losses().detach()
    assert lowest["fixed"] < -1e-3
    assert lowest["pcgrad"] > -1e-9
    assert final["pcgrad"][1] < final["fixed"][1]
