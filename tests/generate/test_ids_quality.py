"""The numbers of the quality report, and what is refused for them."""

from pathlib import Path

import numpy as np
import pytest
from catalogues import catalogue, planted_items, planted_titles

from recsys.errors import InputError
from recsys.generate.assign import assign
from recsys.generate.balanced_kmeans import BalancedKMeans
from recsys.generate.content import Content
from recsys.generate.ids_config import IdsConfig, Limits
from recsys.generate.items import Items
from recsys.generate.quality import check, collision_rate, flat, leaves, overlap, quality, usage
from recsys.generate.text import count, words


def test_counts_of_five_three_two_and_none() -> None:
    found = usage(np.repeat([0, 1, 2], [5, 3, 2]), 4)
    assert found["usage"] == 0.75
    assert found["perplexity"] == pytest.approx(2.8001, abs=1e-4)
    assert found["entropy"] == pytest.approx(0.7427, abs=1e-4)
    assert (found["used"], found["largest"], found["size"]) == (3, 5, 4)


def test_fewer_items_than_codes_can_use_no_more_than_there_are_items() -> None:
    found = usage(np.array([7, 1, 3]), 256)
    assert found["usage"] == 1
    assert found["entropy"] == pytest.approx(1)
    assert usage(np.array([5]), 256)["entropy"] == 1


def test_one_of_four_items_collides() -> None:
    code_NL = np.array([[0, 1], [0, 1], [1, 0], [2, 2]])
    assert collision_rate(code_NL) == 0.25
    assert leaves(code_NL) == {"prefixes": 3, "one_leaf": 2 / 3}
    assert leaves(code_NL[:, :1]) == {"prefixes": 3, "one_leaf": 2 / 3}


def test_neighbours_overlap_wholly_with_themselves_and_by_chance_with_noise() -> None:
    vector_ND = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    assert overlap(vector_ND, vector_ND * 2) == 1
    noise = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    assert overlap(vector_ND, noise) < 0.15


def test_good_ids_pass_and_each_limit_refuses_with_its_mend(tmp_path: Path) -> None:
    items = planted_items(tmp_path / "dataset")
    config = IdsConfig(quantizer=BalancedKMeans(levels=2, codes=6))
    found = quality(config, assign(config, items, seed=1))
    assert found["without_content"] == 0
    check(config, found)
    collapsed = found | {"levels": [found["levels"][0], found["levels"][1] | {"usage": 0.1, "used": 1}]}
    with pytest.raises(
        InputError, match=r"level 2 of the balanced_kmeans ids has usage 0.100 \(1 of 6 codes.*limits.min_usage 0.5"
    ):
        check(config, collapsed)
    uneven = found | {"levels": [found["levels"][0] | {"entropy": 0.2}]}
    with pytest.raises(InputError, match=r"level 1 of .* has entropy 0.200 .*limits.min_entropy 0.3"):
        check(config, uneven)
    strict = config.model_copy(update={"limits": Limits(max_collision_rate=0.01)})
    with pytest.raises(InputError, match=r"collision rate 0\.\d+ \(that of the vectors themselves is 0.000\), above"):
        check(strict, found)


def test_every_number_is_tracked_by_a_name(tmp_path: Path) -> None:
    config = IdsConfig(quantizer=BalancedKMeans(levels=2, codes=6))
    named = flat(quality(config, assign(config, planted_items(tmp_path / "dataset"), seed=1)))
    assert {"collision_rate", "overlap@10", "usage/1", "usage/2", "error/2", "one_leaf/1"} <= named.keys()
    assert all(isinstance(value, float) for value in named.values())


def test_features_that_are_numbers_have_no_words_in_common(tmp_path: Path) -> None:
    """Value 12 of one feature and value 123 of another are as different as any two."""
    data = catalogue(tmp_path / "dataset", features={"brand": ["12", "12", "7"], "kind": ["123", "9", "12"]})
    spec = Content()
    vectors = spec(Items(data), spec.fit(Items(data), 1))[2:]
    assert vectors[0] @ vectors[1] > 0.2, "one brand"
    assert abs(vectors[0] @ vectors[2]) < 1e-5


def test_words_and_their_ngrams() -> None:
    assert list(words("Ink, pen", 4, 4)) == ["w ink", "c <ink", "c ink>", "w pen", "c <pen", "c pen>"]
    assert list(words("A-4", 3, 0)) == ["w a", "w 4"]


def test_hashed_columns_hold_counts() -> None:
    found = count([["a", "b", "a"], []], 2**20).toarray()
    assert sorted(found[0][found[0] > 0].tolist()) == [1, 2]
    assert found[1].sum() == 0


def test_content_of_a_new_item_needs_no_new_fit_and_unknown_words_say_nothing(tmp_path: Path) -> None:
    items = planted_items(tmp_path / "dataset")
    spec = Content(longest=0)
    state = spec.fit(items, 1)
    grown = Items(catalogue(tmp_path / "new", [*planted_titles(), "qwertz", "printer ink ink"]))
    vectors = spec(grown, state)
    np.testing.assert_allclose(vectors[:-2], spec(items, state), atol=1e-6)
    assert not vectors[-2].any()
    assert (vectors[-1] @ vectors[3]) > 0.5, "row 3 is an ink printer"


def test_a_brand_is_not_drowned_by_a_long_title(tmp_path: Path) -> None:
    titles = ["one two three four five six seven eight nine ten", "eleven twelve thirteen fourteen fifteen sixteen", "one two"]
    data = catalogue(tmp_path / "dataset", titles, {"brand": ["x", "x", "y"]})
    found = Content(longest=0)
    vectors = found(Items(data), found.fit(Items(data), 1))[2:]
    assert vectors[0] @ vectors[1] > 0.2
