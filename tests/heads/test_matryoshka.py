"""Widths and similarities, by hand. Shapes: N = predictions, C = items, D = width."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from recsys.heads.matryoshka import Matryoshka
from recsys.heads.similarity import Cosine, Dot, Similarity


def test_the_full_width_is_added() -> None:
    assert Matryoshka(dims=(8, 16)).slices(64) == [(8, 1.0), (16, 1.0), (64, 1.0)]
    assert Matryoshka(dims=(8, 64), weights=(0.5, 2)).slices(64) == [(8, 0.5), (64, 2.0)]
    assert Matryoshka(dims=(8,), weights=(0.5,)).slices(64) == [(8, 0.5), (64, 1.0)]


def test_losses_are_summed_by_weight() -> None:
    losses = {2: 0.9, 4: 0.5}
    assert sum(weight * losses[dim] for dim, weight in Matryoshka(dims=(2,)).slices(4)) == pytest.approx(1.4)
    assert sum(weight * losses[dim] for dim, weight in Matryoshka(dims=(2,), weights=(3,)).slices(4)) == pytest.approx(3.2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dims": [16, 8]}, r"dims \[16, 8\] must be positive and increase"),
        ({"dims": [8, 8]}, "increase"),
        ({"dims": [0, 8]}, "positive"),
        ({"dims": []}, "at least 1"),
        ({"dims": [8, 16], "weights": [1]}, "must be as many as dims"),
        ({"dims": [8], "weights": [0]}, "must be positive"),
    ],
)
def test_impossible_widths_are_refused(settings: dict[str, list[int]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Matryoshka.model_validate(settings)


def test_wider_than_the_encoder() -> None:
    with pytest.raises(ValueError, match=r"matryoshka.dims \[8, 96\] exceed the encoder's dim 64: name widths up to 64"):
        Matryoshka(dims=(8, 96)).slices(64)


def test_cosine_of_a_slice_by_hand() -> None:
    user_ND, item_CD = torch.tensor([[3.0, 4.0, 12.0]]), torch.tensor([[3.0, 4.0, 12.0], [4.0, 3.0, -9.0], [0.0, 0.0, 5.0]])
    for dim, own in ((2, [0.6, 0.8]), (3, [3 / 13, 4 / 13, 12 / 13])):
        user, item = Cosine(temperature=0.5)(user_ND[:, :dim], item_CD[:, :dim])
        torch.testing.assert_close(item[0], torch.tensor(own))
        torch.testing.assert_close(user[0], 2 * torch.tensor(own))
    user, item = Cosine(temperature=0.5)(user_ND[:, :2], item_CD[:, :2])
    torch.testing.assert_close(user @ item.T, torch.tensor([[2.0, 1.92, 0.0]]))  # 24 / 25 / 0.5; nothing left of the third


def test_dot_leaves_the_vectors() -> None:
    user_ND, item_CD = torch.randn(2, 3), torch.randn(4, 3)
    user, item = Dot()(user_ND, item_CD)
    assert user is user_ND
    assert item is item_CD


def test_cosine_gradients_are_finite_at_zero() -> None:
    user_ND, item_CD = torch.zeros(1, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    user, item = Cosine()(user_ND, item_CD)
    (user @ item.T).sum().backward()
    assert user_ND.grad is not None
    assert torch.isfinite(user_ND.grad).all()


def test_kinds() -> None:
    adapter = TypeAdapter(Similarity)
    assert adapter.validate_python({"kind": "cosine"}) == Cosine(temperature=0.05)
    assert adapter.validate_python({"kind": "dot"}) == Dot()
    for bad in ({"kind": "cosine", "temperature": 0}, {"kind": "euclid"}, {"kind": "dot", "temperature": 1}):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)
