"""Shapes: U = users, K = places of a list."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from recsys.jagged import Jagged
from recsys.metrics.ranking import coverage, rank_metrics

LOG2_3 = 1.584962500721156


def test_hand_worked_numbers():
    item_UK = np.array([[5, 2, 9, 4], [7, 3, 0, 0], [2, 3, 4, 5]])
    relevant = Jagged.from_lists([[2, 4, 8], [7], [9]])
    metrics = rank_metrics(item_UK, relevant, [2, 4])

    # User 0 hits at places 2 and 4 of three relevant items, user 1 at place 1 of one, user 2 never.
    np.testing.assert_allclose(metrics["HR@2"], [1, 1, 0])
    np.testing.assert_allclose(metrics["Recall@2"], [1 / 3, 1, 0])
    np.testing.assert_allclose(metrics["Recall@4"], [2 / 3, 1, 0])
    np.testing.assert_allclose(metrics["Precision@2"], [1 / 2, 1 / 2, 0])
    np.testing.assert_allclose(metrics["Precision@4"], [2 / 4, 1 / 4, 0])  # user 1's list is short: K stays 4
    np.testing.assert_allclose(metrics["MRR@4"], [1 / 2, 1, 0])
    # Precision is 1/2 at both hits of user 0, of at most two and three targets.
    np.testing.assert_allclose(metrics["MAP@2"], [1 / 2 / 2, 1, 0])
    np.testing.assert_allclose(metrics["MAP@4"], [(1 / 2 + 2 / 4) / 3, 1, 0])
    # DCG@2 = 1/log2 3 = .63093; ideal, hits at 1 and 2: 1 + 1/log2 3 = 1.63093; their ratio .38685.
    np.testing.assert_allclose(metrics["NDCG@2"], [0.386853, 1, 0], atol=1e-6)
    # DCG@4 = 1/log2 3 + 1/log2 5 = .63093 + .43068 = 1.06161; ideal, three hits: 1 + .63093 + .5 = 2.13093; ratio .49819.
    np.testing.assert_allclose(metrics["NDCG@4"], [(1 / LOG2_3 + 1 / np.log2(5)) / (1.5 + 1 / LOG2_3), 1, 0])
    np.testing.assert_allclose(metrics["NDCG@4"][0], 0.498190, atol=1e-6)


def test_hits_beyond_k_do_not_count():
    metrics = rank_metrics(np.array([[3, 4, 5]]), Jagged.from_lists([[5]]), [2, 3])
    assert {name: value_U[0] for name, value_U in metrics.items() if name.endswith("@2")} == {
        "HR@2": 0, "NDCG@2": 0, "MAP@2": 0, "MRR@2": 0, "Recall@2": 0, "Precision@2": 0,
    }  # fmt: skip
    assert metrics["MRR@3"][0] == pytest.approx(1 / 3)
    assert metrics["NDCG@3"][0] == pytest.approx(1 / 2)  # 1 / log2 4


def test_a_user_without_relevant_items_is_nan_in_every_metric():
    metrics = rank_metrics(np.array([[2, 3], [2, 3]]), Jagged.from_lists([[], [2]]), [1, 2])
    assert len(metrics) == 12
    for name, value_U in metrics.items():
        assert value_U.dtype == np.float64
        assert np.isnan(value_U).tolist() == [True, False], name


@pytest.mark.parametrize("fill", [0, -1])
def test_fill_never_hits_and_never_leaks_into_the_next_user(fill: int):
    # With item keys user * stride + item, a fill of -1 would be the last item (6) of the user before.
    item_UK = np.array([[2, fill, fill], [fill, fill, fill], [6, 5, fill]])
    metrics = rank_metrics(item_UK, Jagged.from_lists([[6], [6], [5]]), [3])
    assert metrics["HR@3"].tolist() == [0, 0, 1]
    assert metrics["MRR@3"].tolist() == [0, 0, 0.5]


def test_unknown_is_never_a_hit_but_counts_as_relevant():
    metrics = rank_metrics(np.array([[1, 2]]), Jagged.from_lists([[1, 2]]), [2])
    assert metrics["Recall@2"].tolist() == [0.5]


def test_repeated_relevant_items_count_once():
    metrics = rank_metrics(np.array([[4, 5]]), Jagged.from_lists([[4, 4, 9]]), [2])
    assert metrics["Recall@2"].tolist() == [0.5]


def test_int32_ids_beyond_float32_stay_exact():
    item_UK = np.array([[2**24 + 1, 2**24 + 3]], np.int32)
    metrics = rank_metrics(item_UK, Jagged.from_lists([[2**24 + 2, 2**24 + 3]]), [2])
    assert metrics["MRR@2"].tolist() == [0.5]


def test_no_users():
    metrics = rank_metrics(np.empty((0, 3), np.int64), Jagged.from_lists([]), [3])
    assert metrics["NDCG@3"].shape == (0,)


def test_what_cannot_be_measured_is_refused():
    one = Jagged.from_lists([[2]])
    with pytest.raises(ValueError, match="K=3: the lists have 2 places"):
        rank_metrics(np.array([[2, 3]]), one, [1, 3])
    with pytest.raises(ValueError, match="K=0"):
        rank_metrics(np.array([[2, 3]]), one, [0])
    with pytest.raises(ValueError, match="row 0 repeats item 3"):
        rank_metrics(np.array([[3, 2, 3]]), one, [1])


def brute_force(items: list[int], relevant: set[int], k: int) -> dict[str, float]:
    places = [place for place, item in enumerate(items[:k], start=1) if item in relevant and item >= 2]
    ideal = sum(1 / np.log2(place + 1) for place in range(1, min(len(relevant), k) + 1))
    return {
        f"HR@{k}": float(bool(places)),
        f"NDCG@{k}": sum(1 / np.log2(place + 1) for place in places) / ideal,
        f"MAP@{k}": sum(hit / place for hit, place in enumerate(places, start=1)) / min(len(relevant), k),
        f"MRR@{k}": 1 / places[0] if places else 0.0,
        f"Recall@{k}": len(places) / len(relevant),
        f"Precision@{k}": len(places) / k,
    }


def test_agrees_with_a_loop_over_users():
    rng = np.random.default_rng(1)
    lists = [rng.permutation(np.arange(2, 30))[:8] for _ in range(200)]
    relevant = [rng.permutation(np.arange(2, 30))[: rng.integers(1, 12)] for _ in lists]
    item_UK = np.array(lists)
    item_UK[np.arange(8) >= rng.integers(0, 9, (200, 1))] = 0
    metrics = rank_metrics(item_UK, Jagged.from_lists(relevant), [1, 5, 8])
    for user, row in enumerate(item_UK.tolist()):
        for k in (1, 5, 8):
            for name, expected in brute_force(row, set(relevant[user].tolist()), k).items():
                assert metrics[name][user] == pytest.approx(expected), (user, name)


def test_ndcg_agrees_with_scikit_learn():
    rng = np.random.default_rng(2)
    label_UI = rng.random((50, 40)) < 0.1
    label_UI[:, 0] |= ~label_UI.any(1)
    score_UI = rng.random((50, 40))
    item_UK = np.argsort(-score_UI, axis=1)[:, :10] + 2
    relevant = Jagged.from_lists([np.flatnonzero(row) + 2 for row in label_UI])
    ours = rank_metrics(item_UK, relevant, [10])["NDCG@10"].mean()
    assert ours == pytest.approx(ndcg_score(label_UI, score_UI, k=10))


def test_coverage():
    # Items 2, 3 and 7 of the eight real ones (2..9): 3 / 8; fill and unknown are not part of the catalogue.
    assert coverage(np.array([[2, 3, 0], [3, 7, -1], [1, 2, 0]]), num_items=10) == 3 / 8
    assert coverage(np.zeros((2, 3), np.int64), num_items=10) == 0
