"""Shapes: U = users, K = places of a list, I = rows of the item table, C = categories."""

import numpy as np
import pytest
from scipy.special import rel_entr

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics import categories
from recsys.metrics.categories import ALPHA, categories_of, category_calibration, intra_list_diversity

# Items 2..6: {2}, {2, 3}, {3}, {4, 5}, unknown; item 3 repeats a code.
CODES = Jagged.from_lists([[1], [1], [2], [2, 3, 2], [3], [4, 5], [1]])
HAS_IC = categories_of(CODES)


def test_a_repeated_code_counts_once() -> None:
    assert HAS_IC.toarray()[3].tolist() == [0, 0, 1, 1, 0, 0]
    assert HAS_IC.shape == (7, 6)


def test_diversity_by_hand() -> None:
    # Similarities: 2 and 3 share one of two (1/2), 3 and 4 likewise, 2 and 4 none. Mean distance (1/2 + 1/2 + 1) / 3 = 2/3.
    item_UK = np.array([[2, 3, 4], [2, 5, 0], [2, 0, 0], [0, -1, 1]])
    found_U = intra_list_diversity(item_UK, HAS_IC)
    assert found_U[:2].tolist() == pytest.approx([2 / 3, 1])
    assert np.isnan(found_U[2:]).all()  # one item, or none, makes no pair


def test_calibration_by_hand() -> None:
    # History: 2, 3 -> p = (1 + 1/2, 1/2) / 2 = (.75, .25) of categories 2 and 3. List: 4, 5 -> q = 1/2 of 3, 1/4 of 4 and of 5.
    # q~(2) = .01 * .75 = .0075, q~(3) = .99 * .5 + .01 * .25 = .4975: .75 ln(.75 / .0075) + .25 ln(.25 / .4975) = 3.281844.
    found = category_calibration(np.array([[4, 5]]), Jagged.from_lists([[2, 3]]), HAS_IC)
    assert found.tolist() == pytest.approx([3.281844], rel=1e-6)


def test_the_same_mix_is_0_and_another_one_the_most() -> None:
    item_UK, history = np.array([[2, 4], [2, 4], [5, 6]]), Jagged.from_lists([[4, 4, 2, 2], [5], [2]])
    same, other, without_overlap = category_calibration(item_UK, history, HAS_IC)
    assert same == pytest.approx(0, abs=1e-12)
    assert other == without_overlap == pytest.approx(-np.log(ALPHA))


def test_without_history_or_list_there_is_none() -> None:
    found_U = category_calibration(np.array([[2], [0], [1]]), Jagged.from_lists([[], [2], [2]]), HAS_IC)
    assert np.isnan(found_U).all()
    assert np.isnan(category_calibration(np.array([[2]]), Jagged.from_lists([[1]]), HAS_IC)).all()  # unknown items alone


def random_lists(seed: int) -> tuple[np.ndarray, Jagged, Jagged]:
    rng = np.random.default_rng(seed)
    codes = Jagged.from_lists([[1], [1], *(rng.integers(1, 12, rng.integers(1, 5)) for _ in range(60))])
    item_UK = np.array([rng.permutation(np.arange(FIRST_ID, 62))[:8] for _ in range(80)])
    item_UK[np.arange(8) >= rng.integers(0, 9, (80, 1))] = 0
    return item_UK, Jagged.from_lists([rng.integers(1, 62, rng.integers(0, 9)) for _ in item_UK]), codes


@pytest.mark.parametrize("cells", [1, 200, 2**21])
def test_agrees_with_a_loop_over_users_whatever_the_chunks(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(categories, "CELLS", cells)
    item_UK, history, codes = random_lists(0)
    has_IC = categories_of(codes)
    diversity_U, calibration_U = intra_list_diversity(item_UK, has_IC), category_calibration(item_UK, history, has_IC)
    assert 10 < np.isfinite(calibration_U).sum() < 80
    weight_IC = has_IC.toarray() / has_IC.toarray().sum(1, keepdims=True)
    sets = [set(part.tolist()) for part in np.split(codes.item_E, codes.offset_U1[1:-1])]
    for user, row in enumerate(item_UK.tolist()):
        items = [item for item in row if item]
        pairs = [(a, b) for place, a in enumerate(items) for b in items[:place]]
        if pairs:
            distances = [1 - len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs]
            assert diversity_U[user] == pytest.approx(np.mean(distances))
        else:
            assert np.isnan(diversity_U[user])
        chosen = [item for item in history.slice(user, user + 1).item_E.tolist() if item >= FIRST_ID]
        if items and chosen:
            p_C, q_C = weight_IC[chosen].mean(0), weight_IC[items].mean(0)
            assert calibration_U[user] == pytest.approx(rel_entr(p_C, (1 - ALPHA) * q_C + ALPHA * p_C).sum())
        else:
            assert np.isnan(calibration_U[user])


def test_the_order_of_users_places_and_events_does_not_matter() -> None:
    item_UK, history, codes = random_lists(1)
    has_IC, order_U = categories_of(codes), np.random.default_rng(0).permutation(80)
    turned_UK, turned = item_UK[order_U, ::-1], Jagged.from_lists([history.slice(u, u + 1).item_E[::-1] for u in order_U])
    np.testing.assert_allclose(intra_list_diversity(turned_UK, has_IC), intra_list_diversity(item_UK, has_IC)[order_U])
    before_U = category_calibration(item_UK, history, has_IC)
    np.testing.assert_allclose(category_calibration(turned_UK, turned, has_IC), before_U[order_U], atol=1e-12)


def test_nobody() -> None:
    assert intra_list_diversity(np.empty((0, 3), np.int64), HAS_IC).shape == (0,)
    assert category_calibration(np.empty((0, 3), np.int64), Jagged.from_lists([]), HAS_IC).shape == (0,)
