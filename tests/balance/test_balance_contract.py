"""What every balancer promises; a new member of the union is tested with no edit here."""

from typing import Any, get_args

import pytest
import torch
from conflicting import Problem, problem
from pydantic import TypeAdapter
from torch import Tensor, nn

from recsys.balance import Balance

MEMBERS = get_args(get_args(Balance)[0])
NAMES = ["click", "like", "share"]
every_member = pytest.mark.parametrize("spec", MEMBERS, ids=lambda spec: spec.__name__)


def run(spec: Any, of: Problem, weights: list[float] | None = None, seed: int = 1) -> tuple[dict[str, Tensor], nn.Module]:
    """One call, with torch's generators and the balancer's seeded."""
    tasks = of.label_BT.shape[1]
    balance = spec.build(dict(zip(NAMES, weights or [1.0] * tasks, strict=False)))
    torch.manual_seed(seed)
    return balance(of.losses, of.shared, of.own, torch.Generator().manual_seed(seed)), balance


def gradients(of: Problem) -> list[Tensor]:
    return [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone() for tensor in [*of.shared, *of.own]]


@every_member
def test_every_tensor_that_is_used_gets_a_gradient(spec: Any) -> None:
    of = problem(tasks=3)
    run(spec(), of)
    for tensor in [of.bottom, *of.vectors, *of.own]:
        assert tensor.grad is not None
        assert tensor.grad.shape == tensor.shape
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0
    assert of.unused.grad is None or not of.unused.grad.any()


@every_member
def test_adds_to_the_gradients_there_are(spec: Any) -> None:
    fresh, used = problem(tasks=3), problem(tasks=3)
    for tensor in [*used.shared, *used.own]:
        tensor.grad = torch.full_like(tensor, 2.0)
    run(spec(), fresh)
    run(spec(), used)
    for found, expected in zip(gradients(used), gradients(fresh), strict=True):
        torch.testing.assert_close(found, expected + 2, rtol=1e-5, atol=1e-6)


@every_member
def test_two_calls_accumulate(spec: Any) -> None:
    once, twice = problem(), problem()
    run(spec(), once)
    run(spec(), twice)
    run(spec(), twice)
    for found, expected in zip(gradients(twice), gradients(once), strict=True):
        torch.testing.assert_close(found, 2 * expected)


@every_member
def test_no_two_tensors_share_a_gradient(spec: Any) -> None:
    """Autograd hands out one and the same gradient for both sides of a sum."""
    a, b = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    spec().build({"click": 1.0})(lambda: ((a + b) ** 2).sum()[None], [a, b], [], torch.Generator())
    assert a.grad is not None
    assert b.grad is not None
    before = b.grad.clone()
    a.grad += 1
    assert torch.equal(b.grad, before)


@every_member
def test_weights_come_back_bit_for_bit(spec: Any) -> None:
    of = problem(tasks=3, dropout=0.3)
    tensors = [*of.shared, *of.own]
    before, places = [t.detach().clone() for t in tensors], [t.data_ptr() for t in tensors]
    run(spec(), of)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))
    assert [t.data_ptr() for t in tensors] == places
    assert all(t.is_leaf and t.requires_grad for t in tensors)


@every_member
def test_same_seed_same_gradient(spec: Any) -> None:
    found = []
    for _ in range(2):
        of = problem(tasks=3, dropout=0.3)
        terms, _ = run(spec(), of, seed=5)
        found.append([*gradients(of), *terms.values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@every_member
def test_takes_as_much_randomness_as_one_forward_pass(spec: Any) -> None:
    of = problem(dropout=0.3)
    run(spec(), of)
    after = torch.rand(1)
    torch.manual_seed(1)
    of.losses()
    assert torch.equal(after, torch.rand(1))


@every_member
def test_terms(spec: Any) -> None:
    """The losses are logged without their weights; nothing logged holds a graph."""
    of = problem(tasks=3)
    expected_T = of.losses().detach()
    terms, _ = run(spec(), of, [1.0, 2.0, 0.5])
    torch.testing.assert_close(torch.stack([terms[f"loss/{name}"] for name in NAMES]), expected_T)
    assert torch.isfinite(torch.stack([value.double() for value in terms.values()])).all()
    assert "loss" in terms
    assert not any(value.requires_grad or value.ndim for value in terms.values())


@every_member
def test_a_task_without_labels_changes_nothing(spec: Any) -> None:
    """Its loss is 0: the others' gradients are as without it, whatever its weight."""
    alone, beside = problem(tasks=2), problem(tasks=3)
    beside.vectors, beside.bottom = alone.vectors, alone.bottom
    beside.towers = [*alone.towers, beside.towers[2]]
    beside.label_BT = torch.cat([alone.label_BT, torch.full((40, 1), torch.nan)], dim=1)
    run(spec(), alone)
    expected = [tensor.grad for tensor in [alone.bottom, *alone.vectors, *alone.towers]]
    for tensor in [alone.bottom, *alone.vectors, *alone.towers]:
        tensor.grad = None
    terms, _ = run(spec(), beside, [1.0, 1.0, 7.0])
    assert terms["loss/share"] == 0
    for tensor, gradient in zip([alone.bottom, *alone.vectors, *alone.towers], expected, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)
    assert beside.towers[2].grad is None or not beside.towers[2].grad.any()


@every_member
@pytest.mark.parametrize("nothing", ["no graph in one", "no graph at all", "no example"])
def test_nothing_to_learn_is_no_error(spec: Any, nothing: str) -> None:
    of = problem(tasks=2)

    def losses() -> Tensor:
        match nothing:
            case "no graph in one":
                return torch.stack([of.losses()[0], torch.zeros(())])
            case "no graph at all":
                return torch.zeros(2)
        of.label_BT = torch.full_like(of.label_BT, torch.nan)
        return of.losses()

    terms = spec().build({"click": 1.0, "like": 1.0})(losses, of.shared, of.own, torch.Generator())
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients(of))
    if nothing != "no graph in one":
        assert not any(gradient.any() for gradient in gradients(of))


@every_member
def test_the_loss_of_one_task_goes_down_as_with_fixed_weights(spec: Any) -> None:
    """With a single task there is nothing to balance: the direction is that of its own gradient, but for flatness."""
    of, plain = problem(tasks=1), problem(tasks=1)
    run(spec(), of, [2.0])
    (2 * plain.losses().sum()).backward()
    flat = torch.cat([gradient.flatten() for gradient in gradients(of)])
    expected = torch.cat([gradient.flatten() for gradient in gradients(plain)])
    cosine = torch.nn.functional.cosine_similarity(flat, expected, dim=0).item()
    exact = spec.model_fields["kind"].default != "flat_regions"
    assert cosine == pytest.approx(1, abs=1e-6 if exact else 0.01)


@pytest.mark.parametrize("kind", ["fixed", "pcgrad", "rep_mtl"])
def test_one_task_is_exactly_fixed_weights(kind: str) -> None:
    of, plain = problem(tasks=1), problem(tasks=1)
    run(TypeAdapter(Balance).validate_python({"kind": kind}), of, [2.0])
    (2 * plain.losses().sum()).backward()
    for found, expected in zip(gradients(of), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "settings", [{"kind": "flat_regions", "rho": 1e-6}, {"kind": "rep_mtl", "entropy_weight": 0, "alignment_weight": 0}]
)
def test_a_method_switched_off_is_fixed_weights(settings: dict[str, Any]) -> None:
    of, plain = problem(tasks=3, dtype=torch.float64), problem(tasks=3, dtype=torch.float64)
    run(TypeAdapter(Balance).validate_python(settings), of, [2.0, 1.0, 0.5])
    run(TypeAdapter(Balance).validate_python({"kind": "fixed"}), plain, [2.0, 1.0, 0.5])
    for found, expected in zip(gradients(of), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@every_member
def test_kind_names_the_spec_and_misspelt_keys_fail(spec: Any) -> None:
    kind = spec.model_fields["kind"].default
    assert isinstance(TypeAdapter(Balance).validate_python({"kind": kind}), spec)
    with pytest.raises(ValueError, match="nonsense"):
        TypeAdapter(Balance).validate_python({"kind": kind, "nonsense": 1})


@every_member
def test_a_model_learns(spec: Any) -> None:
    """Every task of a model without conflict ends well below where it began."""
    of = problem(tasks=2, seed=3, dropout=0.1)
    of.label_BT[:, 1] = of.label_BT[:, 0]
    balance = spec().build({"click": 1.0, "like": 1.0})
    first_T = of.losses().detach()
    optimizer = torch.optim.Adam([of.bottom, *of.own, *balance.parameters()], lr=0.05)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for _ in range(100):
        optimizer.zero_grad()
        balance(of.losses, of.shared, of.own, generator)
        optimizer.step()
    assert (of.losses() < 0.7 * first_T).all()
