"""Shapes: U = users, B = users in a batch, I = rows of the item table, K = places."""

import os
from pathlib import Path

import numpy as np
import pytest

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics.floor import ItemKNN, Popularity, Scorer, Transitions, recommend, top_k
from recsys.metrics.ranking import rank_metrics

TIMELINES = Jagged.from_lists([[2, 3, 4], [2, 3, 2, 3], [3, 5], []])
NUM_ITEMS = 7


def test_jagged_slices_and_ends():
    assert TIMELINES.lengths.tolist() == [3, 4, 2, 0]
    assert TIMELINES.row_E.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    middle = TIMELINES.slice(1, 3)
    assert (len(middle), middle.item_E.tolist(), middle.offset_U1.tolist()) == (2, [2, 3, 2, 3, 3, 5], [0, 4, 6])
    assert TIMELINES.slice(2, 99).item_E.tolist() == [3, 5]
    last = TIMELINES.last(3)
    assert (last.item_E.tolist(), last.offset_U1.tolist()) == ([2, 3, 4, 3, 2, 3, 3, 5], [0, 3, 6, 8, 8])
    shorter = TIMELINES.drop_last(2)
    assert (shorter.item_E.tolist(), shorter.offset_U1.tolist()) == ([2, 2, 3], [0, 1, 3, 3, 3])
    with pytest.raises(AssertionError, match="offsets end at 2, there are 3 entries"):
        Jagged(np.array([2, 3, 4]), np.array([0, 2]))


def test_popularity_counts_events():
    # Item 2: once and twice; 3: once, twice and once; 4 and 5: once.
    score_BI = Popularity.fit(TIMELINES, NUM_ITEMS).scores(Jagged.from_lists([[2], []]))
    assert score_BI.tolist() == [[0, 0, 3, 4, 1, 1, 0]] * 2


def test_item_knn_by_hand():
    # Users of 2: {0, 1}; of 3: {0, 1, 2}; of 4: {0}; of 5: {2}.
    cos_23, cos_24, cos_34, cos_35 = 2 / np.sqrt(6), 1 / np.sqrt(2), 1 / np.sqrt(3), 1 / np.sqrt(3)
    whole = ItemKNN.fit(TIMELINES, NUM_ITEMS)
    history = Jagged.from_lists([[2], [2, 3, 2], []])
    expected_BI = [
        [0, 0, 0, cos_23, cos_24, 0, 0],
        [0, 0, cos_23, cos_23, cos_24 + cos_34, cos_35, 0],  # 2 is there twice and counts once
        [0, 0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(whole.scores(history), expected_BI, rtol=1e-6)
    # From the last event alone, the second user is the first.
    last = ItemKNN.fit(TIMELINES, NUM_ITEMS, last=1)
    np.testing.assert_allclose(last.scores(history)[1], expected_BI[0], rtol=1e-6)


def test_item_knn_agrees_with_dense_cosine():
    rng = np.random.default_rng(0)
    timelines = Jagged.from_lists([rng.integers(2, 20, rng.integers(0, 9)) for _ in range(60)])
    seen_UI = np.zeros((60, 20))
    seen_UI[timelines.row_E, timelines.item_E] = 1
    norm_I = np.linalg.norm(seen_UI, axis=0)
    norm_I[norm_I == 0] = 1
    similarity_II = (seen_UI.T @ seen_UI) / np.outer(norm_I, norm_I)
    np.fill_diagonal(similarity_II, 0)
    np.testing.assert_allclose(ItemKNN.fit(timelines, 20).scores(timelines), seen_UI @ similarity_II, rtol=1e-5, atol=1e-6)


def test_transitions_by_hand():
    # 2 -> 3 three times, 3 -> 4 once, 3 -> 2 once, 3 -> 5 once; no pair reaches from one user to the next (4 -> 2, 3 -> 3).
    model = Transitions.fit(TIMELINES, NUM_ITEMS)
    counts_II = model.count_II.toarray()
    assert {(i, j): counts_II[i, j] for i, j in np.argwhere(counts_II).tolist()} == {(2, 3): 3, (3, 4): 1, (3, 2): 1, (3, 5): 1}
    # After 3, equal counts go by popularity (2 before 4 and 5), then by id (4 before 5); then 3 itself, then unseen 6.
    history = Jagged.from_lists([[4, 3], [], [6]])
    item_UK = recommend(model, history, NUM_ITEMS, 5, filter_seen=False)
    assert item_UK[0].tolist() == [2, 4, 5, 3, 6]
    assert item_UK[1].tolist() == item_UK[2].tolist() == [3, 2, 4, 5, 6]  # nothing to follow: popularity


def test_the_popularity_tie_breaker_survives_large_counts():
    # 2 -> 3 and 2 -> 4 a thousand times each, and 4 once more on its own, among 204,001 events: the tie breakers differ by
    # 1 / 204002 = 4.9e-6, less than the 6.1e-5 between neighbouring float32 numbers at 1000.
    timelines = Jagged.from_lists([[2, 3]] * 1000 + [[2, 4]] * 1000 + [[4]] + [[5]] * 200_000)
    assert recommend(Transitions.fit(timelines, 6), Jagged.from_lists([[2]]), 6, 2, filter_seen=True).tolist() == [[4, 3]]


@pytest.mark.parametrize("scorer", [model.fit(TIMELINES, NUM_ITEMS) for model in (Popularity, ItemKNN, Transitions)])
def test_recommend_filters_fills_and_is_the_same_in_any_batch(scorer: Scorer):
    history = Jagged.from_lists([[2, 3, 4, 5], [3], [], [2, 1, 0]])
    item_UK = recommend(scorer, history, NUM_ITEMS, 6, filter_seen=True)
    assert item_UK[0].tolist() == [6, 0, 0, 0, 0, 0]
    assert sorted(item_UK[1].tolist()) == [0, 0, 2, 4, 5, 6]
    assert sorted(item_UK[2].tolist()) == [0, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(item_UK, recommend(scorer, history, NUM_ITEMS, 6, filter_seen=True, batch=1))
    wide_UK = recommend(scorer, history, NUM_ITEMS, 9, filter_seen=True)
    np.testing.assert_array_equal(wide_UK, np.pad(item_UK, [(0, 0), (0, 3)]))
    unfiltered_UK = recommend(scorer, history, NUM_ITEMS, 5, filter_seen=False)
    assert (np.sort(unfiltered_UK, axis=1) == np.arange(FIRST_ID, NUM_ITEMS)).all()


def test_top_k_agrees_with_a_stable_sort_under_ties():
    rng = np.random.default_rng(1)
    score_BI = rng.integers(0, 4, (300, 25)).astype(np.float32)
    score_BI[rng.random((300, 25)) < 0.5] = -np.inf
    for k in (1, 7, 25):
        expected_BK = np.argsort(-score_BI, axis=1, kind="stable")[:, :k]
        expected_BK[np.isneginf(np.take_along_axis(score_BI, expected_BK, axis=1))] = 0
        np.testing.assert_array_equal(top_k(score_BI, k), expected_BK)


def test_top_k_refuses_nan():
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        top_k(np.array([[0.0, np.nan, 1.0]]), 2)


def ml_1m() -> Jagged:
    """Timelines by time, ties in the order of the file; dense ids in the order of the external ones."""
    folder = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "../shared/data")) / "ml-1m"
    if not (folder / "ratings.parquet").exists():
        pytest.skip(f"no ml-1m at {folder}: set RECSYS_DATA to the folder that holds ml-1m/ratings.parquet")
    import polars as pl

    events = pl.read_parquet(folder / "ratings.parquet", columns=["user_id", "movie_id", "timestamp"])
    events = events.sort("user_id", "timestamp", maintain_order=True)
    item_E = np.unique(events["movie_id"].to_numpy(), return_inverse=True)[1] + FIRST_ID
    count_U = np.unique(events["user_id"].to_numpy(), return_counts=True)[1]
    return Jagged(item_E, np.concatenate([[0], np.cumsum(count_U)]))


def test_the_floor_on_ml_1m():
    """Leave-one-out, whole catalogue, seen items filtered, equal scores by lower id; the history includes the validation item.

    The expected figures come from an independent script that ranks each target by counting what scores above it.
    """
    timelines = ml_1m()
    num_items = int(timelines.item_E.max()) + 1
    history, training = timelines.drop_last(1), timelines.drop_last(2)
    target = timelines.last(1)

    def figures(scorer: Scorer) -> tuple[float, float]:
        metrics = rank_metrics(recommend(scorer, history, num_items, 10, filter_seen=True), target, [10])
        return metrics["HR@10"].mean(), metrics["NDCG@10"].mean()

    from_training = {
        "popularity": figures(Popularity.fit(training, num_items)),
        "item-KNN, last 3": figures(ItemKNN.fit(training, num_items, last=3)),
        "transitions": figures(Transitions.fit(training, num_items)),
    }
    assert from_training["popularity"] == pytest.approx((0.03659, 0.01794), abs=1e-5)
    assert from_training["item-KNN, last 3"] == pytest.approx((0.17699, 0.10029), abs=5e-4)  # float32 sums tie differently
    assert from_training["transitions"] == pytest.approx((0.22185, 0.12915), abs=1e-5)
    assert figures(Transitions.fit(history, num_items)) == pytest.approx((0.22202, 0.12931), abs=1e-5)  # with validation
