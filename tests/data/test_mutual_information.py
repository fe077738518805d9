"""How much features tell about each other: a number worked by hand, and what was planted."""

import numpy as np
import polars as pl
import pytest

from recsys.data.mutual_information import mutual_information


def two(values: list[tuple[int, int, int]]) -> pl.DataFrame:
    """Items with value a and value b of two features, each as often as told."""
    rows = [(a, b) for a, b, count in values for _ in range(count)]
    return pl.DataFrame(rows, ["feature_a", "feature_b"], orient="row")


def test_by_hand() -> None:
    """The joint distribution [[.4, .1], [.1, .4]] has .192745 nats; unknown values are not counted."""
    items = two([(2, 2, 4), (2, 3, 1), (3, 2, 1), (3, 3, 4), (1, 1, 9), (1, 2, 5), (2, 0, 5)])
    mutual_FF = mutual_information(items, ["a", "b"])
    assert mutual_FF[0, 1] == mutual_FF[1, 0] == pytest.approx(0.192745, abs=1e-6)
    assert mutual_FF.diagonal().tolist() == [0, 0]


def test_several_values_share_an_items_weight() -> None:
    """Item 1 has values 2 and 3 of a, and 2 of b; item 2 has 3 and 3: joint [[1/4, 0], [1/4, 1/2]]. An item without is out."""
    items = pl.DataFrame(
        {"feature_a": [[2, 3, 1], [3], [], [1]], "feature_b": [2, 3, 2, 3]},
        {"feature_a": pl.List(pl.Int32), "feature_b": pl.Int32},
    )
    expected = 0.25 * np.log(0.25 / (0.25 * 0.5)) + 0.25 * np.log(0.25 / (0.75 * 0.5)) + 0.5 * np.log(0.5 / (0.75 * 0.5))
    assert mutual_information(items, ["a", "b"])[0, 1] == pytest.approx(expected)


def test_nothing_known_is_nothing_told() -> None:
    assert mutual_information(two([(1, 1, 5)]), ["a", "b"])[0, 1] == 0


def test_planted_dependence_is_found_in_its_order() -> None:
    """b copies a nine times in ten, c four times in ten, d never; tags hold a among others."""
    rng = np.random.default_rng(0)
    a = rng.integers(2, 8, 4000)
    noisy = {
        name: np.where(rng.random(4000) < share, a, rng.integers(2, 8, 4000))
        for name, share in (("b", 0.9), ("c", 0.4), ("d", 0))
    }
    tags = [[int(value), int(other)] for value, other in zip(a, rng.integers(10, 30, 4000), strict=True)]
    items = pl.DataFrame(
        {"feature_a": a, **{f"feature_{name}": values for name, values in noisy.items()}, "feature_tags": tags}
    )
    mutual_FF = mutual_information(items, ["a", "b", "c", "d", "tags"])
    assert mutual_FF[0, 1] > mutual_FF[0, 4] > mutual_FF[0, 2] > mutual_FF[0, 3]
    assert mutual_FF[0, 3] < 0.01
    assert (mutual_FF == mutual_FF.T).all()
    fewer = mutual_information(items, ["a", "b", "c", "d", "tags"], most_items=1000)
    assert (fewer[0, 1:] != mutual_FF[0, 1:]).all()
    np.testing.assert_allclose(fewer, mutual_FF, atol=0.1)
    assert (mutual_information(items, ["a", "b", "c", "d", "tags"]) == mutual_FF).all()
