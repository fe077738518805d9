"""Each view's own numbers."""

import pytest
import torch
from torch import Generator

from recsys.augment.correlated import Correlated
from recsys.augment.crop import Crop
from recsys.augment.mask import Mask
from recsys.augment.noise import Noise
from recsys.augment.random_mask import RandomMask
from recsys.augment.reorder import Reorder
from recsys.augment.similar_items import similar_items
from recsys.augment.substitute import Substitute
from recsys.augment.value_dropout import value_dropout
from recsys.augment.view import Histories, part_of, some_of_each
from recsys.batch import Ids
from recsys.columns import UNKNOWN_ID
from recsys.jagged import Jagged


def ten_and_three() -> Histories:
    return Histories(Ids(torch.arange(100, 113), torch.tensor([10, 3])), torch.tensor([0, 0]))


def views(spec: object, count: int = 200) -> list[torch.Tensor]:
    return [spec(ten_and_three(), Generator().manual_seed(seed)).events.value_N for seed in range(count)]  # type: ignore[operator]


def test_parts_are_rounded_down_without_the_errors_of_floats() -> None:
    length_B = torch.tensor([100, 10, 3, 0])
    assert part_of(length_B, 0.29).tolist() == [29, 2, 0, 0]
    assert part_of(length_B, 0.7).tolist() == [70, 7, 2, 0]
    assert part_of(length_B, 1.0).tolist() == [100, 10, 3, 0]


def test_crops_are_runs_from_every_place() -> None:
    crops = [Crop(share=0.6)(ten_and_three(), Generator().manual_seed(seed)) for seed in range(200)]
    assert {tuple(crop.events.length_B.tolist()) for crop in crops} == {(6, 1)}
    first, second = ({int(crop.first_B[row]) for crop in crops} for row in (0, 1))
    assert (first, second) == ({0, 1, 2, 3, 4}, {0, 1, 2})
    for crop in crops:
        begin, other = crop.first_B.tolist()
        assert crop.events.value_N.tolist() == [*range(100 + begin, 106 + begin), 110 + other]


def test_masks_have_their_number_everywhere_and_leave_one_event() -> None:
    masked = torch.stack([view_N == UNKNOWN_ID for view_N in views(Mask(share=0.4))])
    assert (masked[:, :10].sum(1) == 4).all()
    assert (masked[:, 10:].sum(1) == 1).all()
    assert masked.any(0).all()
    nearly_all = torch.stack([view_N == UNKNOWN_ID for view_N in views(Mask(share=0.99))])
    assert (nearly_all[:, :10].sum(1) == 9).all()
    assert (nearly_all[:, 10:].sum(1) == 2).all()


def test_reorder_shuffles_a_run_of_each_history() -> None:
    moved_places = set()
    for view_N in views(Reorder(share=0.5)):
        assert sorted(view_N[:10].tolist()) == list(range(100, 110))
        assert view_N[10:].tolist() == [110, 111, 112]  # half of three is one, which has nowhere to go
        moved = (view_N != torch.arange(100, 113)).nonzero().squeeze(1)
        assert not len(moved) or moved.max() - moved.min() < 5
        moved_places |= set(moved.tolist())
    assert moved_places == set(range(10))


def test_substitutes_are_never_what_is_to_be_predicted() -> None:
    similar_I = torch.arange(200) + 50
    given = ten_and_three()._replace(similar_I=similar_I, next_B=torch.tensor([152, 0]))
    for seed in range(20):
        view_N = Substitute(share=1)(given, Generator().manual_seed(seed)).events.value_N
        assert view_N.tolist() == [150, 151, 102, *range(153, 163)]  # 152 is also what follows the first history


def test_what_goes_best_with_an_item() -> None:
    """2 and 3 are neighbours in both users' timelines, 4 stands once near each of them, 5 alone."""
    timelines = Jagged.from_lists([[2, 3, 4], [3, 2], [5]])
    assert similar_items(timelines, 7, reach=1).tolist() == [0, 1, 3, 2, 3, 5, 6]
    pairs = similar_items(Jagged.from_lists([[2, 9, 9, 9, 3], [2, 3]]), 10, reach=1)
    assert pairs[2] == 3, "1 / sqrt(2 * 2) is more than 1 / sqrt(2 * 3)"
    assert similar_items(Jagged.from_lists([[2, 9, 3]]), 10, reach=1)[2] == 9
    far = similar_items(Jagged.from_lists([[2, 9, 9, 9, 3], [2, 3]]), 10, reach=4)
    assert far[2] == 9, "3 / sqrt(2 * 3) is more than 2 / sqrt(2 * 2)"
    assert similar_items(Jagged.from_lists([]), 3).tolist() == [0, 1, 2]


def test_noise_has_a_share_of_the_length_and_keeps_the_signs() -> None:
    vector_ND = torch.randn(50, 8, generator=Generator().manual_seed(1)).requires_grad_()
    change = Noise(share=0.2)(ten_and_three(), Generator().manual_seed(2)).change
    assert change is not None
    noise_ND = change(vector_ND) - vector_ND
    torch.testing.assert_close(noise_ND.norm(dim=1), 0.2 * vector_ND.norm(dim=1))
    assert torch.equal(noise_ND.sign(), vector_ND.sign())
    change(vector_ND).sum().backward()
    assert torch.equal(vector_ND.grad, torch.ones_like(vector_ND)), "the noise itself has no gradient"


def test_correlated_masks_by_hand() -> None:
    """Of four features 0 is drawn; 2 and then 1 tell most about it: the first view keeps 3 alone."""
    mutual_FF = torch.tensor([[0, 0.5, 0.9, 0.1], [0.5, 0, 0, 0], [0.9, 0, 0, 0], [0.1, 0, 0, 0]])
    seeds = [seed for seed in range(50) if int(torch.randint(4, (1,), generator=Generator().manual_seed(seed))) == 0]
    assert seeds
    for seed in seeds:
        assert Correlated()(mutual_FF, Generator().manual_seed(seed)).tolist() == [True, True, True, False]


@pytest.mark.parametrize(("count", "masked"), [(2, 1), (3, 2), (4, 3), (5, 3), (8, 5)])
def test_how_many_features_are_masked(count: int, masked: int) -> None:
    assert Correlated()(torch.zeros(count, count), Generator()).sum() == masked
    assert RandomMask()(torch.zeros(count, count), Generator()).sum() == count // 2


def test_values_are_dropped_but_never_the_last_and_unknown_ones_always() -> None:
    codes = Ids(torch.tensor([5, 1, 0, 1, 6, 7, 8, 9]), torch.tensor([1, 1, 0, 2, 4]))
    kept = value_dropout(codes, 0.0, Generator())
    assert kept.value_N.tolist() == [5, 6, 7, 8, 9]
    assert kept.length_B.tolist() == [1, 0, 0, 0, 4]
    found = [value_dropout(codes, 0.9, Generator().manual_seed(seed)) for seed in range(100)]
    assert {tuple(part.length_B[:4].tolist()) for part in found} == {(1, 0, 0, 0)}
    lengths = torch.stack([part.length_B[4] for part in found])
    assert lengths.min() == 1
    assert lengths.float().mean() < 2
    assert {value for part in found for value in part.value_N.tolist()} == {5, 6, 7, 8, 9}


def test_some_of_each_row_and_no_more() -> None:
    length_B, count_B = torch.tensor([4, 0, 2, 3]), torch.tensor([2, 0, 2, 0])
    total_N = sum(some_of_each(length_B, count_B, Generator().manual_seed(seed)).float() for seed in range(400))
    assert torch.as_tensor(total_N)[4:].tolist() == [400, 400, 0, 0, 0]
    assert ((torch.as_tensor(total_N)[:4] - 200).abs() < 60).all()
