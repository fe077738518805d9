"""Each loss's own numbers, worked by hand."""

import math

import pytest
import torch
from torch import Generator, Tensor

from recsys.contrast.alignment_uniformity import AlignmentUniformity
from recsys.contrast.calibrated_uniformity import CalibratedUniformity
from recsys.contrast.info_nce import InfoNCE
from recsys.contrast.pairs import Pairs
from recsys.contrast.spherical import slerp, spherical_bezier
from recsys.contrast.uniformity import uniformity

CLOSE = {"atol": 1e-5, "rtol": 0}


def pairs_with(cosine: list[list[float]], first_V: list[int] | None = None, second_V: list[int] | None = None) -> Pairs:
    """First vectors along the axes, second ones with these cosines to them (and a rest along a third axis)."""
    wanted = torch.tensor(cosine, dtype=torch.float64)
    rest = (1 - wanted.square().sum(0)).clamp(min=0).sqrt()
    first = torch.eye(len(wanted), len(wanted) + 1, dtype=torch.float64)
    place = list(range(len(wanted)))
    return Pairs(first, torch.cat([wanted, rest[None]]).T, torch.tensor(first_V or place), torch.tensor(second_V or place))


def test_info_nce_by_hand() -> None:
    """Cosines [[.9, .1], [.2, .8]] over .1: log(1 + e^-8) and log(1 + e^-6)."""
    loss_V = InfoNCE(temperature=0.1)(pairs_with([[0.9, 0.1], [0.2, 0.8]]))
    torch.testing.assert_close(loss_V, torch.tensor([0.000335, 0.002476], dtype=torch.float64), **CLOSE)
    assert loss_V.mean().item() == pytest.approx(0.001406, abs=1e-6)


def test_info_nce_both_ways_by_hand() -> None:
    """Back: log(1 + e^-7) for both."""
    loss_V = InfoNCE(temperature=0.1, both_ways=True)(pairs_with([[0.9, 0.1], [0.2, 0.8]]))
    back = math.log1p(math.exp(-7))
    expected = [(math.log1p(math.exp(-8)) + back) / 2, (math.log1p(math.exp(-6)) + back) / 2]
    torch.testing.assert_close(loss_V, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_the_same_thing_is_no_negative() -> None:
    cosine = [[0.9, 0.1], [0.2, 0.8]]
    assert InfoNCE()(pairs_with(cosine, second_V=[7, 7])).tolist() == [0, 0]
    one_way = InfoNCE(both_ways=True)(pairs_with(cosine, first_V=[7, 7]))
    torch.testing.assert_close(one_way, InfoNCE()(pairs_with(cosine)) / 2)


def three(c: list[float]) -> Tensor:
    """The cosines of the pairs (0, 1), (0, 2), (1, 2)."""
    return torch.tensor([[1, c[0], c[1]], [c[0], 1, c[2]], [c[1], c[2], 1]], dtype=torch.float64)


def test_uniformity_by_hand() -> None:
    """exp(4 (c - s)) of c = [0, .5, -1]: s = 1 everywhere, then s = [.5, .8, 0]."""
    cosine, whose = three([0, 0.5, -1]), torch.arange(3)
    assert uniformity(cosine, whose, t=2).item() == pytest.approx(-2.969503, abs=1e-5)
    calibrated = uniformity(cosine, whose, t=2, similarity_VV=three([0.5, 0.8, 0]))
    assert calibrated.item() == pytest.approx(-1.886411, abs=1e-5)


def test_uniformity_leaves_out_pairs_of_one_thing() -> None:
    cosine = three([0, 0.5, -1])
    assert uniformity(cosine, torch.tensor([4, 4, 5]), t=2).item() == pytest.approx(math.log((math.e**-2 + math.e**-8) / 2))
    assert uniformity(cosine, torch.tensor([4, 4, 4]), t=2).item() == 0


def test_alignment_uniformity_by_hand() -> None:
    """Users (1, 0), (0, 1), items (1, 0), (1, 0): |u - i|^2 = 0 and 2; U = -4 of users, and of items 0, or none if one item."""
    user, item = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0], [1, 0]], dtype=torch.float64)
    two, one = torch.tensor([0, 1]), torch.tensor([3, 3])
    assert AlignmentUniformity(gamma=1, t=2)(Pairs(user, item, two, two)).tolist() == pytest.approx([-2, 0])
    assert AlignmentUniformity(gamma=0.5, t=2)(Pairs(user, item, two, one)).tolist() == pytest.approx([-1, 1])
    assert AlignmentUniformity(gamma=1, t=2)(Pairs(item, user, two, two)).tolist() == pytest.approx([-2, 0])


def test_slerp_by_hand() -> None:
    first, second = torch.tensor([[1.0, 0]], dtype=torch.float64), torch.tensor([[0.0, 1]], dtype=torch.float64)
    found = slerp(first, second, torch.tensor([0.25], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[0.382683, 0.923880]], dtype=torch.float64), **CLOSE)
    ends = [slerp(first, second, torch.tensor([share], dtype=torch.float64)) for share in (1.0, 0.0)]
    torch.testing.assert_close(ends, [first, second])


def test_fused_vectors_lie_on_the_sphere_between_theirs() -> None:
    generator = Generator().manual_seed(1)
    vectors = [torch.randn(100, 5, generator=generator).abs() for _ in range(3)]
    shares = [torch.rand(100, generator=generator) for _ in range(2)]
    fused = spherical_bezier(vectors, shares)
    torch.testing.assert_close(fused.norm(dim=1), torch.ones(100))
    assert (fused >= 0).all()
    same = spherical_bezier([vectors[0]] * 3, shares)
    torch.testing.assert_close(same, vectors[0] / vectors[0].norm(dim=1, keepdim=True))
    nothing = spherical_bezier([torch.zeros(100, 5), vectors[1]], shares[:1])
    torch.testing.assert_close(nothing, vectors[1] / vectors[1].norm(dim=1, keepdim=True))


def test_calibration_by_hand() -> None:
    """Two items with orthogonal vectors and one modality each: s is its cosine, clamped, and U_cal = 4 (0 - s)."""
    user, place = torch.eye(2, dtype=torch.float64), torch.arange(2)
    for angle, similarity in ((0.0, 0.8), (math.pi / 3, 0.5), (math.pi, 0.0)):
        described = torch.tensor([[1.0, 0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
        loss_V = CalibratedUniformity(gamma=1, t=2)(Pairs(user, user, place, place, (described,)))
        assert loss_V.tolist() == pytest.approx([(-4 - 4 * similarity) / 2] * 2)


def test_similar_items_are_pushed_apart_less() -> None:
    """Pairs of equal cosine: the one whose descriptions agree weighs less in the gradient."""
    item = torch.tensor([[1.0, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]], requires_grad=True)
    described = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 0, 1]])
    place = torch.arange(3)
    CalibratedUniformity(max_similarity=1)(Pairs(item.detach(), item, place, place, (described,))).mean().backward()
    away = [-(item.grad[0] @ (item.detach()[0] - item.detach()[other])) for other in (1, 2)]
    assert away[1] > away[0]


def test_the_similarity_has_a_gradient_only_if_asked_for() -> None:
    generator = Generator().manual_seed(3)
    side, place = torch.randn(8, 4, generator=generator), torch.arange(8)
    for detach in (True, False):
        described = tuple(torch.randn(8, 4, generator=generator).abs().requires_grad_() for _ in range(2))
        vectors = side.clone().requires_grad_()
        loss = CalibratedUniformity(detach=detach, max_similarity=1)(Pairs(vectors, vectors, place, place, described)).mean()
        loss.backward()
        assert [vector.grad is None for vector in described] == [detach, detach]


def test_the_place_of_fusion_follows_from_the_seed() -> None:
    generator = Generator().manual_seed(4)
    vectors = [torch.randn(30, 4, generator=generator) for _ in range(4)]
    place = torch.arange(30)
    pairs = Pairs(vectors[0], vectors[1], place, place, (vectors[2], vectors[3]), seed=1)
    spec = CalibratedUniformity(concentration=0.5)
    assert torch.equal(spec(pairs), spec(pairs))
    assert not torch.equal(spec(pairs), spec(pairs._replace(seed=2)))
    half = CalibratedUniformity(concentration=1e7)
    torch.testing.assert_close(half(pairs), half(pairs._replace(seed=2)), atol=1e-3, rtol=0)


def test_the_range_of_similarity_has_two_ends() -> None:
    with pytest.raises(ValueError, match="min_similarity 0\\.9 is more than max_similarity"):
        CalibratedUniformity(min_similarity=0.9)
