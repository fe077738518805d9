"""Draws against the distributions they claim. Shapes: I = rows of the item table, U = users, N = draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from recsys.columns import FIRST_ID, PADDING_ID
from recsys.jagged import Jagged
from recsys.sample import ItemTable, Popularity, Seen, table

COUNT_I = np.array([7, 9, 16, 1, 0, 81])  # padding and unknown have counts that must not matter


def test_hand_worked_probabilities() -> None:
    plain = Popularity(exponent=0.75, smoothing=0)(COUNT_I)
    np.testing.assert_allclose(plain.probability_I, np.array([0, 0, 8, 1, 0, 27]) / 36)  # 16^.75, 1, 81^.75
    np.testing.assert_allclose(plain.log_q_I[[2, 3, 5]], [-np.log(4.5), -np.log(36), np.log(0.75)])
    assert np.isneginf(plain.log_q_I[[0, 1, 4]]).all()
    smoothed = Popularity(exponent=1, smoothing=1)(COUNT_I)
    np.testing.assert_allclose(smoothed.probability_I, np.array([0, 0, 17, 2, 1, 82]) / 102)
    uniform = Popularity(exponent=0)(COUNT_I)
    np.testing.assert_allclose(uniform.probability_I, [0, 0, 0.25, 0.25, 0.25, 0.25])


def test_without_any_training_event_every_real_item_is_as_likely() -> None:
    for exponent in (0.0, 0.75):
        found = Popularity(exponent=exponent, smoothing=0)(np.array([3, 0, 0, 0]))
        assert found.probability_I.tolist() == [0, 0, 0.5, 0.5]


def test_settings_out_of_range_are_refused() -> None:
    for bad in ({"exponent": -1}, {"smoothing": -0.5}, {"alpha": 1}, {"kind": "alias"}):
        with pytest.raises(ValidationError):
            Popularity.model_validate(bad)


def test_frequencies_are_the_probabilities() -> None:
    counts = np.random.default_rng(3).integers(0, 50, 40)
    found = Popularity()(counts)
    drawn = found.draw(np.random.default_rng(1), 200_000)
    real = slice(FIRST_ID, None)
    expected_I = found.probability_I * len(drawn)
    assert set(drawn.tolist()) <= set(range(FIRST_ID, 40))
    assert chisquare(np.bincount(drawn, minlength=40)[real], expected_I[real]).pvalue > 0.001


def test_the_generator_alone_decides() -> None:
    found = Popularity()(COUNT_I)
    first, again, other = (found.draw(np.random.default_rng(seed), 50).tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("rounds", [0, 8])
def test_unseen_draws_have_each_users_own_distribution(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROUNDS", rounds)
    monkeypatch.setattr(table, "CELLS", 6 * 1000)  # several chunks
    found = ItemTable(np.array([0, 0, 0.4, 0.3, 0.2, 0.1]))
    seen = Seen(Jagged.from_lists([[], [2, 2], [2, 3, 4], []]), 6)
    user_N = np.repeat([0, 1, 2], 20_000)
    item_N = found.draw_unseen(np.random.default_rng(5), user_N, seen)
    assert set(item_N[user_N == 2].tolist()) == {5}
    expected = {0: {2: 0.4, 3: 0.3, 4: 0.2, 5: 0.1}, 1: {3: 3 / 6, 4: 2 / 6, 5: 1 / 6}}
    for user, share in expected.items():
        counts = np.bincount(item_N[user_N == user], minlength=6)
        assert set(np.flatnonzero(counts)) == set(share)
        assert chisquare(counts[list(share)], np.array(list(share.values())) * 20_000).pvalue > 0.001


@settings(max_examples=40, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(FIRST_ID, 7), max_size=9), min_size=1, max_size=5),
    count_I=st.lists(st.integers(0, 9), min_size=8, max_size=8),
    seed=st.integers(0, 99),
)
def test_nothing_seen_and_nothing_impossible_is_drawn(lists: list[list[int]], count_I: list[int], seed: int) -> None:
    found = Popularity(smoothing=0)(np.array(count_I))
    seen = Seen(Jagged.from_lists(lists), 8)
    user_N = np.tile(np.arange(len(lists)), 20)
    item_N = found.draw_unseen(np.random.default_rng(seed), user_N, seen)
    possible = set(np.flatnonzero(found.probability_I))
    for user, item in zip(user_N.tolist(), item_N.tolist(), strict=True):
        left = possible - set(lists[user])
        assert item in left if left else item == PADDING_ID


def test_look_ups_of_pairs() -> None:
    seen = Seen(Jagged.from_lists([[3, 5], [], [0, 5]]), 6)
    user_N, item_N = np.divmod(np.arange(18), 6)
    expected = [(u, i) in {(0, 3), (0, 5), (2, 0), (2, 5)} for u, i in zip(user_N, item_N, strict=True)]
    assert seen.has(user_N, item_N).tolist() == expected
    assert seen.has(user_N.astype(np.int32), item_N.astype(np.int32)).tolist() == expected
    assert not Seen(Jagged.from_lists([[], []]), 6).has(np.array([0, 1]), np.array([2, 3])).any()
