"""Shapes: T = tasks, B = examples, Z = coordinates of the shared representation."""

import math

import pytest
import torch
from conflicting import Problem, problem
from torch import Tensor, nn
from torch.nn import functional

from recsys.balance import rep_mtl
from recsys.balance.rep_mtl import RepMTL, misalignment, representation, saliency, saliency_entropy

TASKS = {"click": 1.0, "like": 1.0}


def penalties(of: Problem) -> tuple[Tensor, Tensor]:
    found_TBZ = saliency(of.losses(), of.vectors)
    return saliency_entropy(found_TBZ), misalignment(found_TBZ, 0.1)


@pytest.mark.parametrize(
    ("saliency_T", "entropy"), [((0.75, 0.25), 0.5623), ((-0.75, 0.25), 0.5623), ((2.0, 2.0), 0.6931), ((3.0, 0.0), 0.0)]
)
def test_hand_worked_entropy(saliency_T: tuple[float, ...], entropy: float) -> None:
    assert saliency_entropy(torch.tensor(saliency_T)[:, None, None]).item() == pytest.approx(entropy, abs=1e-4)


def test_entropy_is_the_mean_over_coordinates_and_has_a_gradient_at_zero() -> None:
    saliency_TBZ = torch.tensor([[[0.75, 2.0, 0.0, 5.0]], [[0.25, 2.0, 0.0, 0.0]]], requires_grad=True)
    entropy = saliency_entropy(saliency_TBZ)
    assert entropy.item() == pytest.approx((0.5623 + 0.6931) / 4, abs=1e-4)
    entropy.backward()
    assert saliency_TBZ.grad is not None
    assert torch.isfinite(saliency_TBZ.grad).all()


def test_hand_worked_misalignment() -> None:
    """Two examples on different axes, two tasks that agree: likeness 1 to their own and 0 to the other: log(1 + exp(-1/.5))."""
    saliency_TEZ = torch.tensor([[[1.0, 0], [0, 2.0]], [[-3.0, 0], [0, 1.0]]])
    assert misalignment(saliency_TEZ, 0.5).item() == pytest.approx(math.log1p(math.exp(-2)), abs=1e-6)
    assert misalignment(saliency_TEZ, 0.5).item() == pytest.approx(0.1269, abs=1e-4)
    # Tasks on unlike axes: each example's mean is half of each, of length 1 / sqrt 2, so all have likeness .7071 to all.
    crossed_TEZ = torch.tensor([[[1.0, 0], [1.0, 0]], [[0, 1.0], [0, 1.0]]])
    assert misalignment(crossed_TEZ, 0.5).item() == pytest.approx(math.log(2), abs=1e-6)


def naive_misalignment(saliency_TEZ: Tensor, anchor_EZZ: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """With the Gram matrices written out."""
    unit_TEZ = saliency_TEZ / saliency_TEZ.norm(dim=2, keepdim=True)
    gram_TEZZ = unit_TEZ[..., :, None] * unit_TEZ[..., None, :]
    anchor_EZZ = gram_TEZZ.mean(0) if anchor_EZZ is None else anchor_EZZ
    logit_TEE = functional.cosine_similarity(gram_TEZZ.flatten(2)[:, :, None], anchor_EZZ.flatten(1)[None, None], dim=3)
    examples = torch.arange(saliency_TEZ.shape[1])
    loss = torch.stack([functional.cross_entropy(logit_EE / temperature, examples) for logit_EE in logit_TEE]).mean()
    return loss, anchor_EZZ


def test_misalignment_without_gram_matrices_is_that_with_them_in_value_and_gradient() -> None:
    """The gradient by finite differences of the written-out form, the anchors held."""
    start_TEZ = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    saliency_TEZ = start_TEZ.clone().requires_grad_()
    loss = misalignment(saliency_TEZ, 0.3)
    expected, anchor_EZZ = naive_misalignment(start_TEZ, None, 0.3)
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert saliency_TEZ.grad is not None
    for place in range(0, 60, 7):
        change = torch.zeros(60, dtype=torch.float64)
        change[place] = 1e-6
        change = change.view(3, 5, 4)
        up, down = (naive_misalignment(start_TEZ + sign * change, anchor_EZZ, 0.3)[0] for sign in (1, -1))
        assert ((up - down) / 2e-6).item() == pytest.approx(saliency_TEZ.grad.flatten()[place].item(), abs=1e-6)


def test_examples_without_saliency_are_left_out() -> None:
    saliency_TEZ = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    padded_TEZ = torch.cat([saliency_TEZ, torch.zeros(2, 3, 4)], dim=1).requires_grad_()
    loss = misalignment(padded_TEZ, 0.1)
    torch.testing.assert_close(loss.detach(), misalignment(saliency_TEZ, 0.1))
    loss.backward()
    assert padded_TEZ.grad is not None
    assert torch.isfinite(padded_TEZ.grad).all()
    assert misalignment(torch.zeros(2, 3, 4), 0.1) == 0


def test_saliency_is_an_examples_own_gradient() -> None:
    """Two losses, means over 2 examples of 3 x and of y^2, with vectors x and y of unlike width."""
    x_BD, y_BD = torch.ones(2, 1, requires_grad=True), torch.full((2, 2), 5.0, requires_grad=True)
    saliency_TBZ = saliency(torch.stack([(3 * x_BD).sum(1).mean(), y_BD.square().sum(1).mean()]), [x_BD, y_BD])
    assert saliency_TBZ.tolist() == [[[3, 0, 0]] * 2, [[0, 10, 10]] * 2]
    assert saliency_TBZ.requires_grad


def test_the_representation_is_what_has_a_row_per_example() -> None:
    vectors = [torch.zeros(rows, 2) for rows in (7, 3, 3)]
    assert [len(vector) for vector in representation([nn.Parameter(torch.zeros(7, 2)), *vectors])] == [3, 3]
    assert representation([nn.Parameter(torch.zeros(7, 2))]) == []


@pytest.mark.parametrize("which", [0, 1])
def test_penalties_have_a_gradient(which: int) -> None:
    """They would be constants without the second-order graph."""
    of = problem(dtype=torch.float64)
    gradients = torch.autograd.grad(penalties(of)[which], [of.bottom, *of.vectors, *of.towers])
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients)


def test_entropy_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rep_mtl, "FLOOR", 0.0)  # the floor counts as a constant although it moves with the saliencies
    of = problem(tasks=3, dtype=torch.float64)
    balance = RepMTL(entropy_weight=0.5, alignment_weight=0).build({"click": 1.0, "like": 2.0, "share": 0.5})
    balance(of.losses, of.shared, of.own, torch.Generator())
    tensors, step = [of.bottom, of.vectors[0], of.towers[1]], 1e-6
    gradients = [tensor.grad.clone() for tensor in tensors if tensor.grad is not None]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        for place in range(4):
            totals = []
            for sign in (step, -step):
                with torch.no_grad():
                    tensor.view(-1)[place] += sign
                totals.append(balance(of.losses, of.shared, of.own, torch.Generator())["loss"].item())
                with torch.no_grad():
                    tensor.view(-1)[place] -= sign
            assert (totals[0] - totals[1]) / (2 * step) == pytest.approx(gradient.flatten()[place].item(), abs=1e-6)


def test_attention_can_be_differentiated_twice() -> None:
    """The fused kernel, which torch takes by default, cannot."""
    vector_BD, weight = torch.randn(4, 6, requires_grad=True), nn.Parameter(torch.randn(6, 6))

    def losses() -> Tensor:
        seen_BHLD = (vector_BD @ weight).view(4, 1, 3, 2)
        out = functional.scaled_dot_product_attention(seen_BHLD, seen_BHLD, seen_BHLD)
        return torch.stack([out.sigmoid().mean(), out[..., 0].tanh().mean()])

    RepMTL().build(TASKS)(losses, [weight, vector_BD], [], torch.Generator())
    assert weight.grad is not None
    assert weight.grad.any()


@pytest.mark.parametrize("seed", range(3))
def test_each_penalty_lowers_what_it_penalises(seed: int) -> None:
    found = {}
    for name, settings in (("none", (0, 0)), ("entropy", (1, 0)), ("alignment", (0, 1))):
        of = problem(seed=seed)
        balance = RepMTL(entropy_weight=settings[0], alignment_weight=settings[1]).build(TASKS)
        optimizer = torch.optim.Adam([of.bottom, *of.own], lr=0.02)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(100):
            optimizer.zero_grad()
            balance(of.losses, of.shared, of.own, generator)
            optimizer.step()
        found[name] = penalties(of)
    assert found["entropy"][0] < found["none"][0]
    assert found["alignment"][1] < found["none"][1]
