"""Shapes: I = rows of the item table, U = users."""

import numpy as np
import pytest

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics.slices import ITEM_SLICES, NO_SLICE, RULES, USER_SLICES, history_slices, popularity_slices, targets_of

HEAD, TORSO, TAIL = range(3)


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        # 12 events, cut at 4 and 8: above the items lie 0, 6, 9, 11 and 12 of them
        ([6, 3, 2, 1, 0], [HEAD, TORSO, TAIL, TAIL, TAIL]),
        # 15 events, cut at 5 and 10: above lie 0, 5 (not less than a third any more), 9 and 9
        ([5, 4, 3, 3], [HEAD, TORSO, TORSO, TORSO]),
        ([1, 1, 10], [TAIL, TAIL, HEAD]),
        ([2, 2, 2, 2], [HEAD, HEAD, HEAD, HEAD]),  # nobody is more popular
        ([0, 0], [TAIL, TAIL]),  # a log without training events
    ],
)
def test_events_are_cut_into_thirds(counts: list[int], wanted: list[int]) -> None:
    slice_I = popularity_slices(np.array([7, 7, *counts]))
    assert slice_I.tolist() == [NO_SLICE] * FIRST_ID + wanted


def test_the_ids_of_items_do_not_matter() -> None:
    random = np.random.default_rng(0)
    count_I = random.zipf(1.5, 200).clip(max=500)
    order_I = random.permutation(200)
    reserved = np.zeros(FIRST_ID, np.int64)
    before, after = (popularity_slices(np.concatenate([reserved, each]))[FIRST_ID:] for each in (count_I, count_I[order_I]))
    assert (after == before[order_I]).all()
    assert len(set(before)) == 3


def test_the_more_popular_slice_is_never_the_rarer_one() -> None:
    count_I = np.concatenate([[0, 0], np.random.default_rng(1).zipf(1.3, 500).clip(max=2000)])
    slice_I = popularity_slices(count_I)
    least, most = ([f(count_I[slice_I == place]) for place in range(3)] for f in (np.min, np.max))
    assert least[HEAD] > most[TORSO]
    assert least[TORSO] > most[TAIL]
    share = [count_I[slice_I == place].sum() / count_I.sum() for place in range(3)]
    assert share[HEAD] >= 1 / 3
    assert share[TAIL] <= 1 / 3


def test_targets_of_other_slices_and_unknown_ones_do_not_count() -> None:
    slice_I = np.array([NO_SLICE, NO_SLICE, HEAD, TORSO, HEAD, TAIL])
    relevant = Jagged.from_lists([[2, 3, 4], [5], [1], [4]])
    found = {place: targets_of(relevant, slice_I, place) for place in range(3)}
    assert {place: row_S.tolist() for place, (row_S, _) in found.items()} == {HEAD: [0, 3], TORSO: [0], TAIL: [1]}
    assert [found[HEAD][1].item_E.tolist(), found[HEAD][1].offset_U1.tolist()] == [[2, 4, 4], [0, 2, 3]]
    assert [found[TAIL][1].item_E.tolist(), found[TAIL][1].offset_U1.tolist()] == [[5], [0, 1]]


@pytest.mark.parametrize(
    ("lengths", "wanted"), [([1, 2, 3, 10], [0, 0, 1, 1]), ([4, 0, 9], [1, 0, 1]), ([5, 5, 5], [1, 1, 1]), ([0], [1])]
)
def test_cold_is_below_the_median(lengths: list[int], wanted: list[int]) -> None:
    assert history_slices(np.array(lengths)).tolist() == wanted


def test_every_slice_is_explained() -> None:
    assert list(RULES) == [*ITEM_SLICES, *USER_SLICES]
