"""Clusters of nearly equal sizes."""

import numpy as np
import pytest
from catalogues import planted_vectors

from recsys.generate import residual
from recsys.generate.balance import balanced, bounds
from recsys.generate.balanced_kmeans import BalancedKMeans
from recsys.generate.items import Items

LINE = np.array([[0.0], [1], [10], [11]], np.float32)


def fit(spec: BalancedKMeans, vector_ND: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return spec.fit(None, np.arange(len(vector_ND)), vector_ND, seed=1)  # type: ignore[arg-type]  # it reads vectors alone


def test_bounds_lie_one_around_an_equal_share() -> None:
    assert bounds(10, 3) == (2, 4)
    assert bounds(3, 3) == (1, 2)


@pytest.mark.parametrize(("vectors", "centroids"), [(10, 3), (48, 7), (100, 100), (97, 2), (500, 31)])
def test_sizes_lie_within_the_bounds_also_where_all_vectors_are_one(vectors: int, centroids: int) -> None:
    rng = np.random.default_rng(0)
    fewest, most = bounds(vectors, centroids)
    for distance_NK in (
        rng.random((vectors, centroids)),
        np.zeros((vectors, centroids)),
        np.ones((vectors, 1)) * rng.random(centroids),
    ):
        size_K = np.bincount(balanced(distance_NK), minlength=centroids)
        assert (size_K >= fewest).all()
        assert (size_K <= most).all()


def test_sharing_out_takes_pairs_by_ascending_distance() -> None:
    rng = np.random.default_rng(3)
    distance_NK = rng.random((40, 8))
    distance_NK[:, 0] *= 0.1  # all want the first
    most, taken, greedy = bounds(40, 8)[1], np.zeros(8, int), np.full(40, -1)
    for vector, centroid in zip(*np.unravel_index(np.argsort(distance_NK, axis=None), distance_NK.shape), strict=True):
        if greedy[vector] < 0 and taken[centroid] < most:
            greedy[vector], taken[centroid] = centroid, taken[centroid] + 1
    if (taken >= bounds(40, 8)[0]).all():
        assert balanced(distance_NK).tolist() == greedy.tolist()
    else:
        assert (balanced(distance_NK) == greedy).mean() > 0.8, "only the empty clusters take from others"


def test_four_points_on_a_line_are_told_exactly_by_two_levels_of_two_codes() -> None:
    code_NT, state = fit(BalancedKMeans(levels=2, codes=2), LINE)
    assert sorted(state["codebook_0"][:, 0].tolist()) == [0.5, 10.5]
    assert sorted(state["codebook_1"][:, 0].tolist()) == [-0.5, 0.5]
    first, second = residual.partial_sums(code_NT, [state["codebook_0"], state["codebook_1"]])
    assert ((LINE - first) ** 2).mean() == 0.25
    assert ((LINE - second) ** 2).mean() == 0


def test_the_error_falls_at_every_level() -> None:
    vector_ND = planted_vectors()[2:]
    spec = BalancedKMeans(levels=4, codes=5)
    code_NT, state = fit(spec, vector_ND)
    errors = [((vector_ND - guess_ND) ** 2).sum(1).mean() for guess_ND in spec.reconstruct(code_NT, state)]
    assert errors == sorted(errors, reverse=True)
    assert ((vector_ND - vector_ND.mean(0)) ** 2).sum(1).mean() > errors[0]


def test_without_balance_codes_are_the_nearest_and_encoding_again_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    vector_ND = rng.standard_normal((60, 3)).astype(np.float32)
    vector_ND[:40] *= 0.01  # one dense place, which balance has to share out
    free = BalancedKMeans(levels=2, codes=4, balance=False)
    code_NT, state = fit(free, vector_ND)
    assert (free.encode(Items(None), np.arange(60), vector_ND, state) == code_NT).all()  # type: ignore[arg-type]
    even = fit(BalancedKMeans(levels=2, codes=4), vector_ND)[0]
    assert np.bincount(code_NT[:, 0]).max() >= 40
    assert np.bincount(even[:, 0]).max() <= 16


def test_there_are_never_more_codes_than_items() -> None:
    _, state = fit(BalancedKMeans(levels=2, codes=256), LINE)
    assert [len(codebook) for codebook in state.values()] == [4, 4]
