import pytest
import torch
from conflicting import problem
from torch import nn

from recsys.balance.conflict import gradient_report


def test_hand_worked_numbers() -> None:
    """Gradients [3, 4], [4, -3] + 0 and [-3, -4] / 5 over a parameter and a vector: norms 5, 5, 1."""
    x, y = nn.Parameter(torch.zeros(1)), torch.zeros(1, 1, requires_grad=True)

    def losses() -> torch.Tensor:
        first, second = 3 * x.sum() + 4 * y.sum(), 4 * x.sum() - 3 * y.sum()
        return torch.stack([first, second, -first / 5, torch.zeros(())])

    report = gradient_report(losses, [x, y], ["a", "b", "c", "d"])
    assert {name: value.item() for name, value in report.items()} == pytest.approx(
        {
            "gradient_norm/a": 5, "gradient_norm/b": 5, "gradient_norm/c": 1, "gradient_norm/d": 0,
            "conflict/a/b": 0, "conflict/a/c": -1, "conflict/a/d": 0, "conflict/b/c": 0, "conflict/b/d": 0, "conflict/c/d": 0,
        }, abs=1e-6,
    )  # fmt: skip


def test_changes_no_gradient_and_no_random_state() -> None:
    of = problem(tasks=3, dropout=0.3)
    of.bottom.grad = torch.ones_like(of.bottom)
    state = torch.get_rng_state()
    gradient_report(of.losses, of.shared, ["a", "b", "c"])
    assert torch.equal(torch.get_rng_state(), state)
    assert (of.bottom.grad == 1).all()
    assert all(tensor.grad is None for tensor in [of.unused, *of.vectors, *of.own])


def test_norms_by_finite_differences() -> None:
    """The squared norm is how fast a loss grows along its own gradient."""
    of, step = problem(dtype=torch.float64), 1e-6
    report = gradient_report(of.losses, [of.bottom], ["a", "b"])
    (gradient,) = torch.autograd.grad(of.losses()[0], of.bottom)
    start = of.bottom.detach().clone()
    rise = []
    for sign in (step, -step):
        of.bottom = nn.Parameter(start + sign * gradient)
        rise.append(of.losses()[0].item())
    assert (rise[0] - rise[1]) / (2 * step) == pytest.approx(report["gradient_norm/a"].item() ** 2, abs=1e-6)
