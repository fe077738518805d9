"""What a warm day trains on. Shapes: U = users, W = windows, O = older windows, X = examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.continual.replay import Replay, drawn, news_windows, older_beside
from recsys.loader import Windows

LENGTHS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8)


def predicted(windows: Windows) -> list[int]:
    """Timeline rows that the windows predict."""
    return [
        row
        for start, length, lead in zip(*windows, strict=True)
        for row in range(int(start) + int(lead), int(start) + int(length))
    ]


def starts(length_U: np.ndarray) -> np.ndarray:
    return np.cumsum(length_U) - length_U


def test_a_window_ends_in_news_and_reads_what_came_before() -> None:
    start_U, known_U, length_U = np.array([0, 10, 20]), np.array([8, 0, 5]), np.array([10, 7, 5])
    start_W, length_W, lead_W = news_windows(start_U, known_U, length_U, size=4)
    # the first user's last 4 events, of which 2 are news; the second user's 7 in two windows; nothing of the third
    assert start_W.tolist() == [6, 13, 10]
    assert length_W.tolist() == [4, 4, 3]
    assert lead_W.tolist() == [2, 0, 0]


@given(LENGTHS, st.integers(1, 7))
def test_every_new_event_is_predicted_once(lengths: list[tuple[int, int]], size: int) -> None:
    known_U, new_U = np.array(lengths).T
    length_U = known_U + new_U
    start_U = starts(length_U)
    windows = news_windows(start_U, known_U, length_U, size)
    wanted = [
        row for start, low, high in zip(start_U, known_U, length_U, strict=True) for row in range(start + low, start + high)
    ]
    assert sorted(predicted(windows)) == wanted
    assert (windows.length_W <= size).all()
    assert (windows.length_W > windows.lead_W).all(), "a window without news"


def test_the_share_of_the_older_is_the_one_asked_for() -> None:
    assert [older_beside(300, share) for share in (0.0, 0.25, 0.5)] == [0, 100, 300]
    rng = np.random.default_rng(0)
    assert len(drawn(np.ones(1000, int), 100, rng)) == 100
    cost_O = rng.integers(1, 10, 1000)
    for wanted in (0, 1, 77, 500):
        row_O = drawn(cost_O, wanted, rng)
        assert abs(int(cost_O[row_O].sum()) - wanted) <= 9
        assert len(set(row_O.tolist())) == len(row_O)
    assert drawn(cost_O, 10**6, rng).tolist() == list(range(1000)), "there is no more"
    assert drawn(np.empty(0, int), 5, rng).tolist() == []


def made(share: float, users: int = 400) -> tuple[Replay, np.ndarray, np.ndarray]:
    """Users of 20 known events and 2 new ones, and as many examples."""
    length_U = np.full(users, 22)
    known_X = np.tile(np.arange(22) < 20, users)
    return Replay(np.full(users, 20), known_X, share, seed=3), starts(length_U), length_U


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_an_epoch_has_all_news_and_another_share_of_the_older(share: float) -> None:
    chosen, start_U, length_U = made(share)
    epochs = []
    for epoch in range(2):
        rows = predicted(chosen.windows(start_U, length_U, 11, epoch))
        examples = chosen.rows(np.arange(len(chosen.known_X)), epoch)
        for found in (np.array(rows), examples):
            news = ~chosen.known_X[found]
            assert news.sum() == 800
            assert len(set(found.tolist())) == len(found)
            assert (~news).mean() == pytest.approx(share, abs=0.01)
        epochs.append((set(rows), set(examples.tolist())))
    for first, second in zip(*epochs, strict=True):
        assert (first != second) == (share > 0)
    again = chosen.windows(start_U, length_U, 11, 1)
    assert set(predicted(again)) == epochs[1][0], "an epoch follows from its number alone"


def test_the_older_come_from_all_days_and_users() -> None:
    chosen, start_U, length_U = made(0.5)
    seen = np.zeros(len(chosen.known_X), int)
    for epoch in range(30):
        seen[predicted(chosen.windows(start_U, length_U, 11, epoch))] += 1
    by_place = seen.reshape(400, 22).mean(0)
    assert (by_place[20:] == 30).all()
    assert by_place[:20].min() > 0.5 * by_place[:20].max() > 0


def test_without_news_there_is_nothing_to_train_on() -> None:
    chosen, start_U, length_U = made(0.25)
    assert not len(chosen.windows(start_U, length_U - 2, 11, 0).start_W)
    assert not len(chosen.rows(np.flatnonzero(chosen.known_X), 0))
