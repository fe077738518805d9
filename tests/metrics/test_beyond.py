"""Shapes: U = users, K = places of a list, I = rows of the item table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics.beyond import gini, novelty, popularity_lift, serendipity
from recsys.metrics.ranking import rank_metrics

# Items 2..5 with 8, 4, 4 and 0 training events: 1, 2, 2 and, counted as a single event, 4 bits.
COUNT_I = np.array([0, 0, 8, 4, 4, 0])


class TestGini:
    def test_by_hand(self) -> None:
        # Exposures 0, 1, 1, 2 of four places: (-3 * 0 - 1 * 1 + 1 * 1 + 3 * 2) / (3 * 4) = 1/2.
        assert gini(np.array([[2, 3], [4, 2]]), num_items=6) == pytest.approx(1 / 2)

    def test_even_is_0_and_a_single_item_1(self) -> None:
        assert gini(np.array([[2, 3], [4, 5]]), num_items=6) == 0
        assert gini(np.array([[2], [2], [2]]), num_items=6) == 1

    def test_places_without_an_item_and_unknown_ones_do_not_count(self) -> None:
        assert gini(np.array([[2, 3, 0, -1], [4, 2, 1, 0]]), num_items=6) == gini(np.array([[2, 3], [4, 2]]), num_items=6)

    def test_where_it_says_nothing_it_is_nan(self) -> None:
        assert np.isnan(gini(np.zeros((2, 3), np.int64), num_items=6))
        assert np.isnan(gini(np.array([[2]]), num_items=3))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(2, 11), min_size=1, max_size=40), st.randoms(use_true_random=False))
    def test_is_that_of_all_pairs_and_knows_no_order(self, items: list[int], random) -> None:
        exposure_I = np.bincount(items, minlength=12)[FIRST_ID:]
        pairs = np.abs(exposure_I[:, None] - exposure_I).sum() / (2 * len(exposure_I) * exposure_I.sum())  # mean difference
        found = gini(np.array(items)[:, None], num_items=12)
        assert found == pytest.approx(pairs * len(exposure_I) / (len(exposure_I) - 1))
        renamed = random.sample(range(2, 12), 10)
        shuffled = random.sample(items, len(items))
        assert gini(np.array([renamed[item - 2] for item in shuffled])[:, None], num_items=12) == pytest.approx(found)
        assert 0 <= found <= 1 + 1e-12


class TestNovelty:
    def test_by_hand(self) -> None:
        assert novelty(np.array([[2, 3], [5, 4], [2, 0]]), COUNT_I).tolist() == pytest.approx([1.5, 3, 1])

    def test_an_empty_list_has_none(self) -> None:
        assert np.isnan(novelty(np.array([[0, -1, 1]]), COUNT_I)[0])

    def test_no_training_event_at_all(self) -> None:
        assert novelty(np.array([[2, 3]]), np.zeros(6, np.int64)).tolist() == [0]

    def test_rarer_is_more_novel(self) -> None:
        count_I = np.concatenate([[0, 0], np.arange(30, 0, -1)])
        novelty_U = novelty(np.arange(2, 32)[:, None], count_I)
        assert (np.diff(novelty_U) > 0).all()


class TestSerendipity:
    def test_by_hand(self) -> None:
        # User 0 hits 2 and 4, and popularity has 2. User 1 hits nothing. User 2's hit is unexpected, in a list that is short.
        item_UK, usual_UK = np.array([[2, 4, 5], [2, 3, 4], [5, 0, 0]]), np.array([[3, 2, 0], [2, 3, 4], [2, 3, 0]])
        relevant = Jagged.from_lists([[2, 4, 4], [5], [5]])
        assert serendipity(item_UK, relevant, usual_UK).tolist() == pytest.approx([1 / 3, 0, 1 / 3])

    def test_without_relevant_items_there_is_none(self) -> None:
        assert np.isnan(serendipity(np.array([[2]]), Jagged.from_lists([[]]), np.array([[3]]))).all()

    def test_lies_between_0_for_the_usual_list_and_precision_beside_another(self) -> None:
        rng = np.random.default_rng(0)
        item_UK, usual_UK = (np.array([rng.permutation(np.arange(2, 30))[:10] for _ in range(50)]) for _ in range(2))
        relevant = Jagged.from_lists([rng.permutation(np.arange(2, 30))[:4] for _ in range(50)])
        assert not serendipity(usual_UK, relevant, usual_UK).any()
        precision_U = rank_metrics(item_UK, relevant, [10])["Precision@10"]
        assert (serendipity(item_UK, relevant, usual_UK) <= precision_U).all()
        np.testing.assert_allclose(serendipity(item_UK, relevant, np.zeros_like(item_UK)), precision_U)


class TestPopularityLift:
    def test_by_hand(self) -> None:
        # Lists: (8 + 4) / 2 = 6 and 8, mean 7. Histories: (4 + 0 + 4 + 4) / 4 = 3 and 4, mean 3.5. 7 / 3.5 - 1 = 1.
        history = Jagged.from_lists([[3, 5, 4, 4], [3, 1]])
        assert popularity_lift(np.array([[2, 3], [2, 0]]), history, COUNT_I) == pytest.approx(1)

    def test_lists_that_repeat_histories_have_none(self) -> None:
        item_UK = np.array([[2, 3], [5, 4]])
        assert popularity_lift(item_UK, Jagged.from_lists(item_UK), COUNT_I) == pytest.approx(0)

    def test_users_without_history_or_list_are_in_neither_mean(self) -> None:
        history = Jagged.from_lists([[3], [], [2]])
        assert popularity_lift(np.array([[2], [2], [0]]), history, COUNT_I) == pytest.approx(8 / 4 - 1)
        assert np.isnan(popularity_lift(np.array([[2]]), Jagged.from_lists([[]]), COUNT_I))
        assert np.isnan(
            popularity_lift(np.array([[2]]), Jagged.from_lists([[5]]), COUNT_I)
        )  # nothing trained on to compare with

    def test_scale_does_not_matter(self) -> None:
        item_UK, history = np.array([[2, 3], [4, 5]]), Jagged.from_lists([[3, 3, 2], [5, 4]])
        assert popularity_lift(item_UK, history, 7 * COUNT_I) == pytest.approx(popularity_lift(item_UK, history, COUNT_I))
