"""Shapes: U = users, I = rows of the item table, K = places."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged
from recsys.metrics import floor
from recsys.metrics.floor import ItemKNN, Popularity, Scorer, Transitions, recommend
from recsys.metrics.floor_lists import Piece
from recsys.metrics.ranking import rank_metrics

TIMELINES = Jagged.from_lists([[2, 3, 4], [2, 3, 2, 3], [3, 5], []])
NUM_ITEMS = 7


def scores(scorer: Scorer, history: Jagged) -> dict[tuple[int, int], float]:
    """By user and item, from all pieces."""
    found = [entry for piece in scorer.pieces(history) for entry in zip(*(part.tolist() for part in piece), strict=True)]
    assert len({(user, item) for user, item, _ in found}) == len(found), "no score comes twice"
    return {(user, item): score for user, item, score in found}


def known_UI(timelines: Jagged, num_items: int) -> np.ndarray:
    seen_UI = np.zeros((len(timelines), num_items))
    seen_UI[timelines.row_E, timelines.item_E] = 1
    return seen_UI


def dense_popularity(timelines: Jagged, history: Jagged, num_items: int) -> np.ndarray:
    return np.tile(np.bincount(timelines.item_E, minlength=num_items).astype(float), (len(history), 1))


def dense_knn(timelines: Jagged, history: Jagged, num_items: int) -> np.ndarray:
    """In 32 bits, and summed in the order of the users and of the items of a profile: equal to the last bit."""
    seen_UI = known_UI(timelines, num_items).astype(np.float32)
    unit_UI = seen_UI * (1 / np.sqrt(np.maximum(seen_UI.sum(0), 1)))
    similarity_II = np.zeros((num_items, num_items), np.float32)
    for unit_I in unit_UI:
        similarity_II += np.outer(unit_I, unit_I)
    np.fill_diagonal(similarity_II, 0)
    score_UI = np.zeros((len(history), num_items), np.float32)
    for user, profile_I in enumerate(known_UI(history.last(3), num_items)):
        for item in np.flatnonzero(profile_I):
            score_UI[user] += similarity_II[item]
    return score_UI


def dense_transitions(timelines: Jagged, history: Jagged, num_items: int) -> np.ndarray:
    score_UI = dense_popularity(timelines, history, num_items) / (len(timelines.item_E) + 1)
    for user in np.flatnonzero(history.lengths):
        last = history.item_E[history.offset_U1[user + 1] - 1]
        for line in range(len(timelines)):
            items = timelines.slice(line, line + 1).item_E
            np.add.at(score_UI[user], items[1:][items[:-1] == last], 1)
    return score_UI


def ranked(score_UI: np.ndarray, history: Jagged, k: int, *, filter_seen: bool) -> np.ndarray:
    """The best `k` of dense scores by a full sort."""
    score_UI[:, :FIRST_ID] = -np.inf
    if filter_seen:
        score_UI[history.row_E, history.item_E] = -np.inf
    id_UI = np.broadcast_to(np.arange(score_UI.shape[1]), score_UI.shape)
    order_UK = np.lexsort((id_UI, -score_UI))[:, :k]
    item_UK = np.where(np.isneginf(np.take_along_axis(score_UI, order_UK, 1)), 0, order_UK)
    return np.pad(item_UK, [(0, 0), (0, k - item_UK.shape[1])])


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
    model = Popularity.fit(TIMELINES, NUM_ITEMS)
    assert model.count_I.tolist() == [0, 0, 3, 4, 1, 1, 0]
    assert recommend(model, Jagged.from_lists([[2], []]), NUM_ITEMS, 5, filter_seen=True).tolist() == [
        [3, 4, 5, 6, 0],
        [3, 2, 4, 5, 6],
    ]


def test_item_knn_by_hand():
    # Users of 2: {0, 1}; of 3: {0, 1, 2}; of 4: {0}; of 5: {2}.
    cos_23, cos_24, cos_34, cos_35 = 2 / np.sqrt(6), 1 / np.sqrt(2), 1 / np.sqrt(3), 1 / np.sqrt(3)
    whole = ItemKNN.fit(TIMELINES, NUM_ITEMS)
    history = Jagged.from_lists([[2], [2, 3, 2], []])
    expected = {
        (0, 3): cos_23, (0, 4): cos_24,
        (1, 2): cos_23, (1, 3): cos_23, (1, 4): cos_24 + cos_34, (1, 5): cos_35,  # 2 is there twice and counts once
    }  # fmt: skip
    assert scores(whole, history) == pytest.approx(expected, rel=1e-6)
    # From the last event alone, the second user is the first.
    last = ItemKNN.fit(TIMELINES, NUM_ITEMS, last=1)
    assert {item: score for (user, item), score in scores(last, history).items() if user == 1} == pytest.approx(
        {3: cos_23, 4: cos_24}, rel=1e-6
    )
    # Items without a common user tie at 0: by id.
    assert recommend(whole, history, NUM_ITEMS, 5, filter_seen=True).tolist() == [
        [3, 4, 5, 6, 0],
        [4, 5, 6, 0, 0],
        [2, 3, 4, 5, 6],
    ]


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


WAYS = {
    "popularity": (Popularity, dense_popularity),
    "item-knn": (ItemKNN, dense_knn),
    "transitions": (Transitions, dense_transitions),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("piece_scores", [1, 40, 10_000])
def test_lists_are_those_of_dense_scores(name: str, piece_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many ties, few items, reserved ids in timelines, lists longer than what is left, pieces of any size."""
    monkeypatch.setattr(floor, "PIECE_SCORES", piece_scores)
    rng = np.random.default_rng(piece_scores)
    kind, reference = WAYS[name]
    for num_items, lists in ((3, 4), (12, 30), (60, 50), (60, 8)):
        timelines, history = (
            Jagged.from_lists([rng.integers(0, num_items, rng.integers(0, 12)) for _ in range(count)]) for count in (lists, 20)
        )
        model = kind.fit(timelines, num_items, **({"last": 3} if kind is ItemKNN else {}))
        for k, filter_seen in ((1, True), (4, True), (4, False), (70, True)):
            found_UK = recommend(model, history, num_items, k, filter_seen=filter_seen, batch=7)
            expected_UK = ranked(reference(timelines, history, num_items), history, k, filter_seen=filter_seen)
            np.testing.assert_array_equal(found_UK, expected_UK)


def test_long_rows_are_cut_before_they_are_sorted_and_lose_nothing() -> None:
    """More scores of a user than two lists hold, with ties, a part of them seen, over two pieces."""
    rng = np.random.default_rng(0)
    num_items, history = 500, Jagged.from_lists([rng.integers(FIRST_ID, 500, 60), [], rng.integers(FIRST_ID, 500, 5)])
    score_UI = rng.integers(1, 40, (3, num_items)).astype(float)

    class Given:
        rest_I = np.arange(FIRST_ID, num_items)

        def pieces(self, history: Jagged) -> Iterator[Piece]:
            for begin, end in ((300, 500), (0, 300)):
                row_N, item_N = (grid.ravel() for grid in np.meshgrid(np.arange(3), np.arange(begin, end), indexing="ij"))
                yield Piece(row_N, item_N, score_UI[row_N, item_N])

    found_UK = recommend(Given(), history, num_items, 20, filter_seen=True)
    np.testing.assert_array_equal(found_UK, ranked(score_UI.copy(), history, 20, filter_seen=True))


def test_item_knn_keeps_no_more_similarities_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "PIECE_SCORES", 500)
    rng = np.random.default_rng(0)
    timelines = Jagged.from_lists([rng.integers(2, 400, 40) for _ in range(100)])
    pieces = list(ItemKNN.fit(timelines, 400, last=3).pieces(timelines))
    assert sum(len(piece.row_N) for piece in pieces) > 20_000
    assert max(len(piece.row_N) for piece in pieces) <= 500


def test_scores_that_are_nan_are_refused() -> None:
    class Broken:
        rest_I = np.arange(FIRST_ID, 5)

        def pieces(self, history: Jagged) -> Iterator[Piece]:
            yield Piece(np.array([0, 0]), np.array([2, 3]), np.array([1.0, np.nan]))

    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        recommend(Broken(), Jagged.from_lists([[4]]), 5, 2, filter_seen=True)


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
