"""Every member of the unions HistoryView and FeatureMask, by one contract each."""

from typing import Any, get_args

import pytest
import torch
from torch import Generator, Tensor

from recsys.augment import FeatureMask, HistoryView
from recsys.augment.view import Histories
from recsys.batch import Ids
from recsys.columns import FIRST_ID, UNKNOWN_ID

LENGTHS = [5, 1, 0, 12, 2, 30]
NUM_ITEMS = 400
HISTORY_VIEWS, FEATURE_MASKS = (list(get_args(get_args(union)[0])) for union in (HistoryView, FeatureMask))


def histories() -> Histories:
    """Different items everywhere; what goes best with an item is the one after it, which may be what is to be predicted."""
    length_B = torch.tensor(LENGTHS)
    value_N = torch.arange(FIRST_ID, FIRST_ID + sum(LENGTHS)) * 3
    last_N = value_N[(length_B.cumsum(0) - 1).clamp(min=0)]
    similar_I = (torch.arange(NUM_ITEMS) + 1).clamp(max=NUM_ITEMS - 1)
    return Histories(Ids(value_N, length_B), last_N + 1, similar_I)


def view_of(spec: Any, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The view's items, lengths and places, and the vectors it makes of fixed ones."""
    given = histories()
    view = spec(given, Generator().manual_seed(seed))
    vector_ND = torch.randn(len(view.events.value_N), 8, generator=Generator().manual_seed(0))
    changed = vector_ND if view.change is None else view.change(vector_ND)
    if view.change is not None:
        assert torch.equal(changed, view.change(vector_ND)), "another view at the second call"
    return view.events.value_N, view.events.length_B, view.first_B, changed


@pytest.mark.parametrize("spec", HISTORY_VIEWS, ids=lambda spec: spec.__name__)
def test_a_view_of_histories(spec: Any) -> None:
    """Shapes, nothing lost but what the view is for, no mutation, the same seed the same view."""
    given, same = histories(), histories()
    length_B, start_B = given.events.length_B, given.events.length_B.cumsum(0) - given.events.length_B
    for seed in range(20):
        view = spec()(given, Generator().manual_seed(seed))
        value_N, kept_B = view.events.value_N, view.events.length_B
        assert len(value_N) == kept_B.sum()
        assert torch.equal(kept_B > 0, length_B > 0)
        assert (view.first_B >= 0).all()
        assert (view.first_B + kept_B <= length_B).all()
        for row, part_N in enumerate(value_N.split(kept_B.tolist())):
            own_N = given.events.value_N[start_B[row] : start_B[row] + length_B[row]]
            allowed = {*own_N.tolist(), UNKNOWN_ID, *(given.similar_I[own_N].tolist() if spec.reads_similar else [])}
            assert set(part_N.tolist()) <= allowed - {int(given.next_B[row])}, "what is to be predicted, or another's event"
            assert not len(part_N) or (part_N != UNKNOWN_ID).any()
        for first, second in zip(view_of(spec(), seed), view_of(spec(), seed), strict=True):
            assert torch.equal(first, second)
    for before, after in zip(
        (*vars(same.events).values(), same.next_B), (*vars(given.events).values(), given.next_B), strict=True
    ):
        assert torch.equal(before, after)


@pytest.mark.parametrize("spec", HISTORY_VIEWS, ids=lambda spec: spec.__name__)
def test_at_neutral_settings_nothing_changes(spec: Any) -> None:
    given = histories()
    value_N, length_B, first_B, changed = view_of(spec.neutral(), 3)
    assert torch.equal(value_N, given.events.value_N)
    assert torch.equal(length_B, given.events.length_B)
    assert not first_B.any()
    assert torch.equal(changed, torch.randn(len(value_N), 8, generator=Generator().manual_seed(0)))


@pytest.mark.parametrize("spec", HISTORY_VIEWS, ids=lambda spec: spec.__name__)
def test_a_view_with_settings_changes_something_and_differs_by_seed(spec: Any) -> None:
    if spec() == spec.neutral():
        return  # the encoder's dropout makes the difference
    views = [view_of(spec(), seed) for seed in range(5)]
    assert any(not _equal(view, view_of(spec.neutral(), 0)) for view in views)
    assert any(not _equal(view, views[0]) for view in views[1:])


@pytest.mark.parametrize("spec", HISTORY_VIEWS, ids=lambda spec: spec.__name__)
def test_there_may_be_no_history(spec: Any) -> None:
    none = torch.empty(0, dtype=torch.int64)
    view = spec()(Histories(Ids(none, none), none, torch.arange(5)), Generator())
    assert len(view.events.value_N) == len(view.events.length_B) == len(view.first_B) == 0


@pytest.mark.parametrize("count", [2, 3, 4, 9])
@pytest.mark.parametrize("spec", FEATURE_MASKS, ids=lambda spec: spec.__name__)
def test_a_mask_of_features(spec: Any, count: int) -> None:
    """Both views have a feature, every feature is masked at times, the seed decides, and the input stays."""
    mutual_FF = torch.rand(count, count, generator=Generator().manual_seed(1))
    mutual_FF = mutual_FF + mutual_FF.T
    before = mutual_FF.clone()
    masks = [spec()(mutual_FF, Generator().manual_seed(seed)) for seed in range(100)]
    for seed, masked_F in enumerate(masks):
        assert masked_F.shape == (count,)
        assert masked_F.dtype == torch.bool
        assert 0 < masked_F.sum() < count
        assert torch.equal(masked_F, spec()(mutual_FF, Generator().manual_seed(seed)))
    seen = torch.stack(masks).float().mean(0)
    assert (seen > 0).all()
    assert len({tuple(masked_F.tolist()) for masked_F in masks}) > 1
    assert torch.equal(mutual_FF, before)


def _equal(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
