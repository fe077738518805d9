"""Every loss of pairs, by one contract."""

from typing import Any, get_args

import pytest
import torch
from torch import Generator

from recsys.contrast import Uniformity, ViewLoss
from recsys.contrast.pairs import Pairs


def members(union: Any) -> list[Any]:
    """The specs of a union, or of a family that has one member so far."""
    inside = get_args(union)
    return list(get_args(inside[0]) or inside[:1]) if inside else [union]


SPECS = {spec.__name__: spec for union in (ViewLoss, Uniformity) for spec in members(union)}
contract = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def some_pairs(number: int = 40, dtype: torch.dtype = torch.float32) -> Pairs:
    generator = Generator().manual_seed(1)
    first, second, *modalities = (torch.randn(number, 6, generator=generator).to(dtype) for _ in range(4))
    place_V = torch.arange(number)
    return Pairs(first.requires_grad_(), second.requires_grad_(), place_V // 2, place_V % 25, tuple(modalities), seed=5)


@contract
def test_one_loss_per_pair(spec: Any) -> None:
    """Shape, no mutation, the same at every call, and a gradient to both sides."""
    pairs, same = some_pairs(), some_pairs()
    loss_V = spec()(pairs)
    assert loss_V.shape == (40,)
    assert torch.isfinite(loss_V).all()
    assert torch.equal(loss_V, spec()(pairs))
    loss_V.mean().backward()
    for side in (pairs.first_VD, pairs.second_VD):
        assert torch.isfinite(side.grad).all()
        assert (side.grad.norm(dim=1) > 0).all()
    for left, right in zip((*pairs[:4], *pairs.modality_VD), (*same[:4], *same.modality_VD), strict=True):
        assert torch.equal(left, right)


@contract
def test_the_length_of_a_vector_does_not_count(spec: Any) -> None:
    pairs = some_pairs()
    longer = pairs._replace(first_VD=3 * pairs.first_VD, modality_VD=tuple(7 * vector for vector in pairs.modality_VD))
    torch.testing.assert_close(spec()(pairs), spec()(longer))


@contract
def test_pairs_that_agree_have_the_lower_loss(spec: Any) -> None:
    pairs = some_pairs()
    near = pairs._replace(second_VD=pairs.first_VD + 0.1 * pairs.second_VD)
    assert spec()(near).mean() < spec()(pairs).mean()


@contract
def test_half_precision_is_not_used(spec: Any) -> None:
    """Vectors come in bfloat16 from the encoder: the loss is that of the same numbers in float32."""
    half = some_pairs(dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss_V = spec()(half)
    assert loss_V.dtype == torch.float32
    whole = half._replace(
        first_VD=half.first_VD.float(), second_VD=half.second_VD.float(), modality_VD=tuple(v.float() for v in half.modality_VD)
    )
    assert torch.equal(loss_V, spec()(whole))


@contract
@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_pairs(spec: Any, number: int) -> None:
    loss_V = spec()(some_pairs(number))
    assert loss_V.shape == (number,)
    assert torch.isfinite(loss_V).all()
    loss_V.sum().backward()


@contract
def test_zero_vectors_and_equal_ones_stay_finite(spec: Any) -> None:
    pairs = some_pairs()
    for vector in (torch.zeros(40, 6), torch.ones(40, 6)):
        sides = vector.clone().requires_grad_(), vector.clone().requires_grad_()
        loss_V = spec()(pairs._replace(first_VD=sides[0], second_VD=sides[1], modality_VD=(vector, -vector, vector)))
        loss_V.sum().backward()
        for tensor in (loss_V, *(side.grad for side in sides)):
            assert torch.isfinite(tensor).all()
