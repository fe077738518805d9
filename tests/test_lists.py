"""Top-k over the catalogue in chunks, against a full sort of dense scores.

Shapes: B = users, D = width, I = rows of the item table, K = list length.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.columns import FIRST_ID
from recsys.errors import InputError
from recsys.evaluate import Judged, lists, recommend, top_k
from recsys.evaluate.top_k import GROUP, TopK, inner_products
from recsys.jagged import Jagged
from recsys.models.hstu import HSTU
from recsys.models.retriever import RetrievalGraph


def sorted_lists(user_BD: Tensor, item_ID: Tensor, k: int, exclude: Jagged | None) -> tuple[np.ndarray, np.ndarray]:
    """By score, then id; 0 and -inf where nothing is left."""
    score_BI = (user_BD.double() @ item_ID.double().T).numpy()
    score_BI[:, :FIRST_ID] = -np.inf
    if exclude is not None:
        score_BI[exclude.row_E, exclude.item_E] = -np.inf
    order_BK = np.lexsort((np.broadcast_to(np.arange(score_BI.shape[1]), score_BI.shape), -score_BI))[:, :k]
    score_BK = np.take_along_axis(score_BI, order_BK, 1)
    return np.where(np.isneginf(score_BK), 0, order_BK), score_BK


def histories(rng: np.random.Generator, users: int, items: int, longest: int) -> Jagged:
    return Jagged.from_lists([rng.integers(0, items, rng.integers(0, longest + 1)) for _ in range(users)])


@pytest.mark.parametrize("items", [3, 50, GROUP, GROUP + 1, 1000, 5 * GROUP])
@pytest.mark.parametrize("users", [1, 9])
@pytest.mark.parametrize("chunk_scores", [1, 4 * GROUP * 9, 2**19])
def test_equals_a_full_sort_under_many_ties(items: int, users: int, chunk_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers: products are exact, so ties are. Chunks that do not divide the catalogue, lists longer than it."""
    monkeypatch.setattr(top_k, "CHUNK_SCORES", chunk_scores)
    rng = np.random.default_rng(items + users)
    for width, high, longest in ((1, 2, 5), (3, 2, items), (8, 50, 2 * items), (2, 1, 0)):
        user_BD = torch.from_numpy(rng.integers(-high, high + 1, (users, width))).float()
        item_ID = torch.from_numpy(rng.integers(-high, high + 1, (items, width))).float()
        user_BD[0] = 0  # all items tie
        exclude = histories(rng, users, items, longest)
        for k in (1, 7, 200, 2000):
            for seen in (exclude, None):
                found, score = TopK(item_ID)(user_BD, k, seen)
                expected_BK, expected_score_BK = sorted_lists(user_BD, item_ID, k, seen)
                np.testing.assert_array_equal(torch.where(score > -torch.inf, found, 0).numpy(), expected_BK)
                np.testing.assert_array_equal(score.numpy(), expected_score_BK)


@pytest.mark.parametrize("order", ["rising", "falling"])
def test_the_order_of_scores_does_not_matter(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rising scores displace every list again and again."""
    monkeypatch.setattr(top_k, "CHUNK_SCORES", GROUP)
    item_ID = torch.arange(3000.0)[:, None] if order == "rising" else torch.arange(3000.0).flip(0)[:, None]
    user_BD = torch.tensor([[1.0], [0.5], [-1.0], [0.0]])
    found, score = TopK(item_ID)(user_BD, 10)
    expected_BK, expected_score_BK = sorted_lists(user_BD, item_ID, 10, None)
    np.testing.assert_array_equal(found.numpy(), expected_BK)
    np.testing.assert_array_equal(score.numpy(), expected_score_BK)


@pytest.mark.parametrize(("users", "width"), [(1, 64), (3, 64), (17, 7), (256, 50)])
def test_copies_of_an_item_tie_wherever_they_stand(users: int, width: int) -> None:
    """Real numbers: equal vectors have equal scores, in the middle of a block, at its edge and in another chunk."""
    generator = torch.Generator().manual_seed(0)
    user_BD, one_D = torch.randn(users, width, generator=generator), torch.randn(width, generator=generator)
    for copies in (2, 15, 33, 257, 5000):
        found, score = TopK(one_D.repeat(copies + FIRST_ID, 1))(user_BD, copies + FIRST_ID)
        assert (found[:, :copies] == torch.arange(FIRST_ID, copies + FIRST_ID)).all()
        assert (score[:, :copies] == score[:, :1]).all()


def test_scores_are_the_products() -> None:
    user_BD, item_CD = torch.randn(31, 64), torch.randn(500, 64)
    torch.testing.assert_close(inner_products(user_BD, item_CD), user_BD @ item_CD.T)
    found, score = TopK(item_CD)(user_BD, 9)
    torch.testing.assert_close(score, (user_BD @ item_CD.T).gather(1, found))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_score_that_is_not_finite_is_found_unless_its_item_is_excluded(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_k, "CHUNK_SCORES", 1)
    item_ID = torch.ones(4 * GROUP, 2)
    item_ID[3 * GROUP] = value
    user_BD = torch.ones(3, 2)
    _, score = TopK(item_ID)(user_BD, 5, Jagged.from_lists([[], [3 * GROUP], [7]]))
    assert score.isnan().all(1).tolist() == [True, False, True]
    item_ID[3 * GROUP], item_ID[0] = 1.0, value  # a reserved row is never scored
    assert TopK(item_ID)(user_BD, 5)[1].isfinite().all()


def test_scores_of_minus_infinity_are_nothing_left() -> None:
    item_ID = torch.tensor([[0.0], [0.0], [1.0], [-torch.inf], [0.5]])
    found, score = TopK(item_ID)(torch.ones(1, 1), 5)
    assert found[score > -torch.inf].tolist() == [2, 4]


def test_no_more_scores_are_in_memory_than_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product that is made, of a catalogue many times as large."""
    sizes = []
    whole = top_k.inner_products
    monkeypatch.setattr(top_k, "inner_products", lambda user, item: sizes.append(len(user) * len(item)) or whole(user, item))
    monkeypatch.setattr(top_k, "CHUNK_SCORES", 16 * GROUP)
    TopK(torch.randn(9000, 4))(torch.randn(8, 4), 10)
    assert sum(sizes) == 8 * 9000
    assert max(sizes) <= 16 * GROUP


def made(rng: np.random.Generator, users: int, items: int) -> Judged:
    history = Jagged.from_lists([rng.integers(FIRST_ID, items, rng.integers(0, 30)) for _ in range(users)])
    times = Jagged.from_lists([range(0, 3_600_000 * (length + 1), 3_600_000) for length in history.lengths])
    return Judged(np.arange(users), history, history, times)


def test_lists_are_the_same_with_threads_and_torch_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, before = np.random.default_rng(0), torch.get_num_threads()
    torch.manual_seed(0)
    graph, judged = RetrievalGraph(HSTU(dim=8, blocks=2, heads=2), 20, torch.randn(300, 8), 5).eval(), made(rng, 200, 300)
    monkeypatch.setattr(lists, "ENCODED_EVENTS", 100)
    alone_UK = recommend(graph, judged, k=12, max_history=20, filter_seen=True, batch=16)
    try:
        torch.set_num_threads(3)
        np.testing.assert_array_equal(recommend(graph, judged, k=12, max_history=20, filter_seen=True, batch=16), alone_UK)
        assert torch.get_num_threads() == 3
        with torch.no_grad():
            graph.item_ID.fill_(torch.nan)
        with pytest.raises(InputError, match="not finite"):
            recommend(graph, judged, k=12, max_history=20, filter_seen=True, batch=16)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_lists_are_those_of_the_exported_graph() -> None:
    """What the serving form answers, where no scores tie."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    graph, judged = RetrievalGraph(HSTU(dim=8, blocks=2, heads=2), 20, torch.randn(300, 8), 5).eval(), made(rng, 40, 300)
    found_UK = recommend(graph, judged, k=12, max_history=20, filter_seen=True, batch=16)
    with torch.no_grad():
        history_BL, length_B, time_BM = lists.read(judged.history, judged.time_ms, 20)
        item_BK, _ = graph.best(history_BL, length_B, lists.padded(judged.history)[0], 12, time_BM)
    np.testing.assert_array_equal(found_UK, item_BK.numpy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_equals_a_full_sort_on_a_gpu() -> None:
    rng = np.random.default_rng(0)
    user_BD = torch.from_numpy(rng.integers(-3, 4, (70, 5))).float()
    item_ID = torch.from_numpy(rng.integers(-3, 4, (20_000, 5))).float()
    exclude = histories(rng, 70, 20_000, 40)
    found, score = TopK(item_ID.cuda())(user_BD.cuda(), 50, exclude)
    expected_BK, expected_score_BK = sorted_lists(user_BD, item_ID, 50, exclude)
    np.testing.assert_array_equal(found.cpu().numpy(), expected_BK)
    np.testing.assert_array_equal(score.cpu().numpy(), expected_score_BK)
