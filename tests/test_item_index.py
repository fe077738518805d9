"""The index against scoring everything.

Shapes: B = requests, I = rows of the item table, D = width, E = excluded,
K = items.
"""

from pathlib import Path

import numpy as np
import pytest

from recsys import item_index
from recsys.columns import FIRST_ID
from recsys.item_index import ItemIndex, build

ROWS, D, K = 3_000, 8, 20
RNG = np.random.default_rng(0)
VECTOR_ID = (RNG.normal(size=(ROWS, D)) * RNG.lognormal(0, 0.3, size=(ROWS, 1))).astype(np.float32)
VECTOR_ID[100:110] = VECTOR_ID[100]  # equal items
USER_BD = RNG.normal(size=(6, D)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("index") / "items.faiss"
    return path, build(VECTOR_ID, path, seed=0)


@pytest.fixture
def index(path: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> ItemIndex:
    """All clusters are looked through, so that what is found is exact; no filter is left to scoring one and all."""
    monkeypatch.setattr(item_index, "EXACT_BELOW", 0)
    return ItemIndex.open(path[0], VECTOR_ID, nprobe=path[1])


def exact(user_BD: np.ndarray, exclude_BE: np.ndarray, bias_XI: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    score_BI = user_BD @ VECTOR_ID.T + (0 if bias_XI is None else bias_XI)
    np.put_along_axis(score_BI, exclude_BE, -np.inf, axis=1)
    score_BI[:, :FIRST_ID] = -np.inf
    item_BK = np.argsort(-score_BI, axis=1, kind="stable")[:, :k]
    score_BK = np.take_along_axis(score_BI, item_BK, axis=1)
    return np.where(np.isfinite(score_BK), item_BK, 0), score_BK


def bias(share: float, rows: int) -> np.ndarray:
    return np.where(np.random.default_rng(1).random((rows, ROWS)) < share, 0, -np.inf).astype(np.float32)


@pytest.mark.parametrize("bias_XI", [None, np.zeros((1, ROWS), np.float32), bias(0.5, 1), bias(0.5, 6), bias(0.005, 6)],
                         ids=["none", "zeros", "one", "each", "few"])  # fmt: skip
@pytest.mark.parametrize("excluded", [0, 3, 500])
def test_it_finds_what_scoring_everything_finds(index: ItemIndex, bias_XI: np.ndarray | None, excluded: int) -> None:
    exclude_BE = RNG.integers(0, ROWS, (6, excluded)) if excluded else np.zeros((6, 1), np.int64)
    item_BK, score_BK = index.search(USER_BD, exclude_BE, bias_XI, K)
    expected_item_BK, expected_BK = exact(USER_BD, exclude_BE, bias_XI, K)
    np.testing.assert_allclose(score_BK, expected_BK, rtol=1e-5)
    np.testing.assert_array_equal(item_BK, expected_item_BK)


def test_a_number_of_the_bias_is_added(index: ItemIndex) -> None:
    bias_1I = np.zeros((1, ROWS), np.float32)
    bias_1I[0, 500:] = -np.inf
    bias_1I[0, 2:500] = np.linspace(0, 1e-3, 498)
    item_BK, score_BK = index.search(USER_BD, np.zeros((6, 1), np.int64), bias_1I, K)
    np.testing.assert_allclose(score_BK, np.take_along_axis(USER_BD @ VECTOR_ID.T + bias_1I, item_BK, axis=1), rtol=1e-5)


def test_where_all_but_a_few_are_excluded_the_few_come(index: ItemIndex) -> None:
    exclude_BE = np.tile(np.r_[0, 1, 5:ROWS], (6, 1))
    item_BK, score_BK = index.search(USER_BD, exclude_BE, None, K)
    assert {tuple(sorted(item_K[:3])) for item_K in item_BK.tolist()} == {(2, 3, 4)}
    assert (item_BK[:, 3:] == 0).all()
    assert np.isneginf(score_BK[:, 3:]).all()


def test_one_cluster_is_enough_to_find_as_many_as_asked(path: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in it may be less than K: then everything is scored."""
    monkeypatch.setattr(item_index, "EXACT_BELOW", 0)
    few = ItemIndex.open(path[0], VECTOR_ID, nprobe=1)
    exclude_BE = np.zeros((6, 1), np.int64)
    item_BK, _ = few.search(USER_BD, exclude_BE, None, 1_000)
    np.testing.assert_array_equal(item_BK, exact(USER_BD, exclude_BE, None, 1_000)[0])
    short_BK, _ = few.search(USER_BD, exclude_BE, None, K)
    assert not np.array_equal(short_BK, item_BK[:, :K]), "one cluster of many is expected to miss some"


def test_few_allowed_items_are_scored_without_the_index(path: tuple[Path, int]) -> None:
    few = ItemIndex.open(path[0], VECTOR_ID, nprobe=1)
    bias_XI = bias(0.3, 1)
    item_BK, _ = few.search(USER_BD, np.zeros((6, 1), np.int64), bias_XI, K)
    np.testing.assert_array_equal(item_BK, exact(USER_BD, np.zeros((6, 1), np.int64), bias_XI, K)[0])


def test_the_same_alone_and_among_others(index: ItemIndex) -> None:
    exclude_BE = RNG.integers(0, ROWS, (6, 4))
    together = index.search(USER_BD, exclude_BE, None, K)
    for b in range(6):
        alone = index.search(USER_BD[b : b + 1], exclude_BE[b : b + 1], None, K)
        np.testing.assert_array_equal(alone[0][0], together[0][b])
        np.testing.assert_array_equal(alone[1][0], together[1][b])
