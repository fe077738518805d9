"""Shapes: N = vectors, D = width."""

import numpy as np
import pytest

from recsys.metrics.embedding_health import alignment, collapse, rankme, uniformity


def rotation(width: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


class TestRankMe:
    @pytest.mark.parametrize(
        ("vectors", "wanted"),
        [
            ([[3, 0], [0, 1]], 1.754765),  # singular values 3 and 1: shares .75 and .25
            (np.eye(4), 4.0),
            (np.outer([1, 2, 3], [1, -1]), 1.0),
            (np.zeros((3, 2)), 0.0),
        ],
    )
    def test_hand_worked(self, vectors: np.ndarray, wanted: float) -> None:
        assert rankme(np.array(vectors)) == pytest.approx(wanted, abs=5e-6)

    def test_neither_size_nor_rotation_matters(self) -> None:
        vector_ND = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 0.1, 0.1]
        assert rankme(7 * vector_ND @ rotation(6)) == pytest.approx(rankme(vector_ND))

    def test_it_lies_between_one_and_the_smaller_side(self) -> None:
        random = np.random.default_rng(0)
        for rows, width in ((40, 5), (5, 40), (1, 3)):
            assert 1 - 1e-4 <= rankme(random.normal(size=(rows, width))) <= min(rows, width) + 1e-4

    def test_a_common_direction_lowers_it(self) -> None:
        vector_ND = np.random.default_rng(0).normal(size=(200, 8))
        found = [rankme(vector_ND + mean) for mean in (0, 2, 20)]
        assert found == sorted(found, reverse=True)

    def test_numbers_that_are_none_are_refused(self) -> None:
        with pytest.raises(ValueError, match="1 of 4 numbers of the vectors are not finite"):
            rankme(np.array([[1.0, np.nan], [0, 1]]))


class TestAlignment:
    @pytest.mark.parametrize(("item", "wanted"), [([2, 0], 0), ([0, 3], 2), ([-1, 0], 4), ([0, 0], 1)])
    def test_hand_worked(self, item: list[float], wanted: float) -> None:
        assert alignment(np.array([[5.0, 0]]), np.array([item], float)) == pytest.approx(wanted)

    def test_it_is_a_mean_over_pairs(self) -> None:
        user_PD, item_PD = np.array([[1.0, 0], [1, 0]]), np.array([[0.0, 1], [1, 0]])
        assert alignment(user_PD, item_PD) == pytest.approx(1)


class TestUniformity:
    CIRCLE = np.array([[1.0, 0], [-0.5, np.sqrt(0.75)], [-0.5, -np.sqrt(0.75)]])

    @pytest.mark.parametrize(
        ("vectors", "wanted"),
        [
            ([[1, 0], [4, 0]], 0),  # one direction
            ([[1, 0], [0.5, np.sqrt(0.75)]], -2),  # cosine .5, squared distance 1
            ([[1, 0], [-1, 0]], -8),
            (CIRCLE, -6),  # three pairs of cosine -.5, squared distance 3
            ([[1, 0], [-1, 0], [0, 1], [0, -1]], -4.396349),  # log((4 exp(-4) + 2 exp(-8)) / 6)
        ],
    )
    def test_hand_worked(self, vectors: np.ndarray, wanted: float) -> None:
        assert uniformity(np.array(vectors)) == pytest.approx(wanted, abs=1e-6)

    def test_even_directions_are_lower_than_a_cone(self) -> None:
        vector_ND = np.random.default_rng(0).normal(size=(300, 16))
        assert uniformity(vector_ND) < uniformity(vector_ND + 1) < uniformity(vector_ND + 5)

    def test_length_does_not_matter(self) -> None:
        random = np.random.default_rng(0)
        vector_ND = random.normal(size=(20, 4))
        assert uniformity(vector_ND * random.uniform(1, 9, (20, 1))) == pytest.approx(uniformity(vector_ND))

    def test_one_vector_has_none(self) -> None:
        assert np.isnan(uniformity(np.ones((1, 3))))


@pytest.mark.parametrize(
    ("effective", "limit", "highest", "says"),
    [
        (50.0, 64, 60.0, None),
        (6.5, 64, 6.5, None),
        (6.3, 64, 6.3, "6.3 of 64 directions (RankMe), they have collapsed"),
        (1.4, 4, 1.4, "they have collapsed"),
        (1.6, 4, 1.6, None),
        (29.0, 64, 60.0, "and used 60.0 before, they are collapsing"),
        (31.0, 64, 60.0, None),
        (1.0, 2, 2.0, None),  # in two dimensions there is nothing to lose
    ],
)
def test_the_alarm(effective: float, limit: float, highest: float, says: str | None) -> None:
    found = collapse(effective, limit, highest)
    assert (found is None) == (says is None)
    assert says is None or found.endswith(says)
