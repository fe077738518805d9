"""Stand-ins against brute force. Shapes: I = rows of the item table, U = users."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_data import write_dataset

from recsys.columns import FIRST_ID, VALID
from recsys.export import stand_ins
from recsys.export.stand_ins import by_segment, covisits, popular, training_events
from recsys.jagged import Jagged

ITEMS = 9
TIMELINES = st.lists(st.lists(st.integers(FIRST_ID, ITEMS - 1), max_size=12), min_size=1, max_size=8)


def brute_force(timelines: list[list[int]]) -> dict[int, list[tuple[int, float]]]:
    """item -> (other, score) by falling score and rising id, from pairs of events at most SPAN apart."""
    total = Counter(item for items in timelines for item in items)
    near: Counter[tuple[int, int]] = Counter()
    for items in timelines:
        for i, one in enumerate(items):
            for j, other in enumerate(items):
                if 0 < abs(i - j) <= stand_ins.SPAN and one != other:
                    near[one, other] += 1
    score = {pair: n / (2 * stand_ins.SPAN * np.sqrt(total[pair[0]] * total[pair[1]])) for pair, n in near.items()}
    return {
        item: sorted(((other, score[one, other]) for one, other in score if one == item), key=lambda pair: (-pair[1], pair[0]))
        for item in range(ITEMS)
    }


@pytest.mark.parametrize(("pairs", "most"), [(2**23, 50), (1, 50), (40, 2)], ids=["one block", "a block an item", "cut"])
@settings(max_examples=60, deadline=None)
@given(timelines=TIMELINES)
def test_covisits_are_those_of_brute_force(pairs: int, most: int, timelines: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_ins, "BLOCK_PAIRS", pairs)
        patch.setattr(stand_ins, "COVISITS", most)
        near, score_N = covisits(Jagged.from_lists(timelines), ITEMS)
    expected = brute_force(timelines)
    assert len(near) == ITEMS
    for item in range(ITEMS):
        part = slice(near.offset_U1[item], near.offset_U1[item + 1])
        wanted = expected[item][:most]
        assert near.item_E[part].tolist() == [other for other, _ in wanted]
        np.testing.assert_allclose(score_N[part], [score for _, score in wanted], rtol=1e-6)
    assert ((score_N > 0) & (score_N <= 1)).all()


def test_of_a_long_timeline_the_last_events_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_ins, "RECENT", 2)
    near, _ = covisits(Jagged.from_lists([[2, 3, 4, 5], [2, 3]]), ITEMS)
    assert [near.item_E[near.offset_U1[item] : near.offset_U1[item + 1]].tolist() for item in (2, 3, 4, 5)] == [
        [3],
        [2],
        [5],
        [4],
    ]


def test_without_any_event() -> None:
    near, score_N = covisits(Jagged.from_lists([[], []]), ITEMS)
    assert near.lengths.tolist() == [0] * ITEMS
    assert not len(score_N)
    assert by_segment(Jagged.from_lists([[], []]), Jagged.from_lists([[2], [3]]), ITEMS).tolist() == [[0]] * 4
    assert popular(np.zeros(ITEMS)).tolist() == list(range(FIRST_ID, ITEMS))


def test_popular_is_by_count_then_id_without_the_reserved_rows() -> None:
    assert popular(np.array([9, 9, 1, 4, 1, 4])).tolist() == [3, 5, 2, 4]


def test_segments_of_a_feature_with_several_values() -> None:
    """User 0 has values 2 and 3, user 1 value 3 (named twice), user 2 none."""
    training = Jagged.from_lists([[5, 5, 6], [6, 7, 7, 7], [8, 8, 8]])
    found = by_segment(training, Jagged.from_lists([[2, 3], [3, 3], []]), ITEMS)
    assert found.tolist() == [[0, 0, 0], [0, 0, 0], [5, 6, 0], [7, 5, 6]]


def test_only_training_events_count(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", [[2, 3, 4, 5], [6]], splits=[[0, 0, VALID, 2], [0]])
    training = training_events(data)
    assert [training.item_E[a:b].tolist() for a, b in zip(training.offset_U1, training.offset_U1[1:], strict=False)] == [
        [], [], [2, 3], [6],
    ]  # fmt: skip
