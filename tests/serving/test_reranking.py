"""Rerankers in the cascade: what of a bundle they read, what they leave alone, what chance did. Shapes: K = candidates."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import NUM_CANDIDATES, TASKS, VALUE, VECTOR_ND, probabilities

from recsys.serving_config import ServingConfig
from serving.bundle.bundle import Bundle
from serving.cascade.rerank import rerank
from serving.cascade.score import Scored
from serving.recommend import recommend
from serving.schema import Query

FILLED = 3  # candidates that only fill up


@pytest.fixture(scope="module")
def plain(bundle_folder: Path) -> Bundle:
    return Bundle.load(bundle_folder)


def with_chain(bundle: Bundle, *chain: dict[str, Any], **serving: Any) -> Bundle:
    config = ServingConfig.model_validate({"rerank": chain, **serving})
    return replace(bundle, facts=bundle.facts.model_copy(update={"serving": config}))


def scored(count: int = 12, *, fill: int = 0, ranked: int | None = None) -> Scored:
    """Items 2, 3, ... by descending value, as the tiny bundle's ranker sees user 2; the last `fill` of them fill up."""
    item_K = np.arange(2, 2 + count)
    probability_KT = np.array([probabilities(2, 3, item) for item in item_K], np.float32).reshape(-1, len(TASKS))
    value_K = probability_KT @ np.array([VALUE[task] for task in TASKS])
    fill_K = np.arange(count) >= count - fill
    order_K = np.lexsort((-value_K, fill_K))
    found = Scored(item_K[order_K], value_K[order_K], -np.arange(count) / 7, fill_K, probability_KT[order_K])
    if ranked is not None:
        found.probability_KT[ranked:] = np.nan
        found.value_K[ranked:] = found.value_K[ranked - 1]
    return found


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_rerankers_nothing_happens(plain: Bundle) -> None:
    given = scored()
    assert rerank(plain, given, 5, rng()) == (given, None)


@pytest.mark.parametrize("kind", ["mmr", "quotas", "jointrank", "explore"])
@pytest.mark.parametrize("fill", [0, FILLED])
def test_everything_moves_together_and_what_fills_up_stays_behind(plain: Bundle, kind: str, fill: int) -> None:
    given = scored(fill=fill)
    keys = {"explore": {"rate": 1, "draw": "uniform"}, "quotas": {"at_most_each": 1}, "mmr": {"trade_off": 0.3}}.get(kind, {})
    found, propensity_K = rerank(with_chain(plain, {"kind": kind, **keys}), given, 4, rng())
    assert sorted(found.item_K.tolist()) == sorted(given.item_K.tolist())
    assert found.item_K.tolist() != given.item_K.tolist()
    place_K = [given.item_K.tolist().index(item) for item in found.item_K]
    for each in fields(Scored):
        np.testing.assert_array_equal(getattr(found, each.name), getattr(given, each.name)[place_K], err_msg=each.name)
    assert place_K[12 - fill :] == list(range(12 - fill, 12))
    assert (propensity_K is not None) == (kind == "explore")
    if propensity_K is not None:
        assert propensity_K.shape == (12,)
        assert (propensity_K[12 - fill :] == 1).all()
        assert propensity_K[0] == pytest.approx(1 / (12 - fill))


def test_vectors_and_categories_are_those_of_the_items(plain: Bundle) -> None:
    """MMR alone by unlikeness is the greedy loop over the bundle's vectors; one of each colour with a quota of one."""
    given = scored()
    found, _ = rerank(with_chain(plain, {"kind": "mmr", "trade_off": 0}), given, 4, rng())
    unit_ND = VECTOR_ND / np.linalg.norm(VECTOR_ND, axis=1, keepdims=True)
    chosen = [int(given.item_K[0])]
    for _ in range(3):
        left = [item for item in given.item_K.tolist() if item not in chosen]
        chosen.append(min(left, key=lambda item: max(0.0, *(float(unit_ND[item] @ unit_ND[other]) for other in chosen))))
    assert found.item_K[:4].tolist() == chosen
    found, _ = rerank(with_chain(plain, {"kind": "quotas", "at_most_each": 1}), given, 3, rng())
    assert sorted((found.item_K[:3] % 3).tolist()) == [0, 1, 2]
    found, _ = rerank(with_chain(plain, {"kind": "quotas", "at_most_each": 3, "at_least": {"blue": 3}}), given, 3, rng())
    assert plain.facts.category["colour"] == ("red", "green", "blue")
    assert (plain.category_I[found.item_K[:3]] == 4).all()


def test_only_what_is_read_is_fetched(plain: Bundle) -> None:
    """A bundle without the tables still serves rerankers that do not read them."""
    bare = replace(plain, vector_ID=np.empty((0, 0)), category_I=np.empty(0))
    for kind in ("jointrank", "explore"):
        rerank(with_chain(bare, {"kind": kind}), scored(), 5, rng())
    with pytest.raises(IndexError):
        rerank(with_chain(bare, {"kind": "mmr"}), scored(), 5, rng())
    with pytest.raises(IndexError):
        rerank(with_chain(bare, {"kind": "quotas"}), scored(), 5, rng())


def test_a_chain_works_one_after_the_other(plain: Bundle) -> None:
    given, chain = (
        scored(),
        ({"kind": "mmr"}, {"kind": "quotas", "at_most_each": 1}, {"kind": "explore", "rate": 1, "slots": [2]}),
    )
    one_by_one = given
    for each in chain:
        one_by_one, propensity_K = rerank(with_chain(plain, each), one_by_one, 3, rng(5))
    found, propensities = rerank(with_chain(plain, *chain), given, 3, rng(5))
    assert found.item_K.tolist() == one_by_one.item_K.tolist()
    np.testing.assert_array_equal(propensities, propensity_K)
    assert propensities is not None
    assert (propensities != 1).tolist() == [place == 2 for place in range(12)]


@pytest.mark.parametrize("kind", ["mmr", "quotas", "jointrank", "explore"])
@pytest.mark.parametrize("ranked", [1, 2, 6])
def test_candidates_beyond_the_ranked_ones_take_part(plain: Bundle, kind: str, ranked: int) -> None:
    given = scored(ranked=ranked)
    found, _ = rerank(with_chain(plain, {"kind": kind}, ranked=ranked), given, 5, rng())
    assert sorted(found.item_K.tolist()) == sorted(given.item_K.tolist())
    if kind == "jointrank" and ranked > 1:
        assert found.item_K[ranked:].tolist() == given.item_K[ranked:].tolist()


def test_where_retrieval_orders_its_score_is_the_value(plain: Bundle) -> None:
    """With one candidate ranked all values are alike, and MMR would see nothing but unlikeness."""
    given = scored(ranked=1)
    found, _ = rerank(with_chain(plain, {"kind": "mmr", "trade_off": 1}, ranked=1), given, 5, rng())
    assert found.item_K.tolist() == given.item_K.tolist()
    strict = with_chain(plain, {"kind": "explore", "rate": 1, "gamma": 0.5}, ranked=1)
    _, propensity_K = rerank(strict, given, 1, rng())
    spread = [1 / (12 + 0.5 * place / 11) for place in range(1, 12)]
    assert propensity_K is not None
    assert min(abs(propensity_K[0] - chance) for chance in [*spread, 1 - sum(spread)]) < 1e-12


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", ["mmr", "quotas", "jointrank", "explore"])
def test_few_candidates(plain: Bundle, kind: str, count: int) -> None:
    found, _ = rerank(with_chain(plain, {"kind": kind}), scored(count), 5, rng())
    assert len(found.item_K) == count


def test_a_recommendation_tells_the_chance_of_each_place(bundle_folder: Path, plain: Bundle) -> None:
    bundle = with_chain(plain, {"kind": "explore", "rate": 1, "draw": "uniform", "slots": [1], "shortlist": 4})
    query = Query(user_id="user-3", k=5)
    found, before = recommend(bundle, query), recommend(plain, query)
    assert [item.propensity for item in found.items] == [1, 0.25, 1, 1, 1]
    assert [item.propensity for item in before.items] == [None] * 5
    assert found.items[0].item_id == before.items[0].item_id
    assert bundle.facts.num_candidates == NUM_CANDIDATES
