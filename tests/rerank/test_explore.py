"""Exploration slots: the chances returned are those by which lists come about. Shapes: K = candidates, A = arms, N = draws."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from slates import slate, valued

from recsys.metrics.off_policy import IPS, SNIPS, Logged
from recsys.rerank import Explore
from recsys.rerank.explore import reward
from recsys.serving_config import ServingConfig

DRAWS = 20_000


def drawn(spec: Explore, given_: Any, k: int, draws: int = DRAWS, seed: int = 0) -> list[tuple[list[int], list[float]]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        each = spec(given_, k, rng)
        assert each.propensity_N is not None
        found.append((each.place_N[:k].tolist(), each.propensity_N[:k].tolist()))
    return found


def test_inverse_gaps_by_hand() -> None:
    """f = .9, .7, .4 and gamma 10: 1 / (3 + 2) = .2, 1 / (3 + 5) = .125, and the rest; gamma 0: all alike."""
    reward_A = np.array([0.9, 0.7, 0.4])
    assert Explore(rate=1, gamma=10).chances(reward_A) == pytest.approx([0.675, 0.2, 0.125])
    assert Explore(rate=1, gamma=0).chances(reward_A) == pytest.approx([1 / 3] * 3)
    assert Explore(rate=0.1, gamma=10).chances(reward_A) == pytest.approx([0.9675, 0.02, 0.0125])
    assert Explore(rate=1, draw="uniform").chances(reward_A) == pytest.approx([1 / 3] * 3)


def test_a_better_one_below_the_first_has_no_gap() -> None:
    """Another reranker put it there; .7 of gamma 10 is 1 / (3 + 3)."""
    assert Explore(rate=1, gamma=10).chances(np.array([0.7, 0.9, 0.4])) == pytest.approx([1 - 1 / 3 - 1 / 6, 1 / 3, 1 / 6])


@given(
    reward_A=st.lists(st.floats(0, 1), min_size=1, max_size=25), gamma=st.floats(0, 1e6), rate=st.floats(1e-6, 1),
    draw=st.sampled_from(["inverse_gap", "uniform"]),
)  # fmt: skip
def test_chances_are_chances_and_the_first_has_the_most_room(
    reward_A: list[float], gamma: float, rate: float, draw: str
) -> None:
    chance_A = Explore(rate=rate, gamma=gamma, draw=draw).chances(np.array(reward_A))  # type: ignore[arg-type]
    assert (chance_A > 0).all()
    assert chance_A.sum() == pytest.approx(1)
    assert chance_A[0] >= (1 - 1e-9) * (rate / len(reward_A) + 1 - rate)


@pytest.mark.parametrize(
    "keys",
    [
        {"rate": 1.0, "gamma": 5.0},
        {"rate": 0.5, "gamma": 5.0, "shortlist": 3},
        {"rate": 1.0, "draw": "uniform", "shortlist": 2},
        {"rate": 0.7, "gamma": 20.0, "slots": (0, 2), "shortlist": 4},
    ],
)
def test_lists_come_about_as_often_as_their_propensities_say(keys: dict[str, Any]) -> None:
    """The share of each slot's item among the draws with the same items above it, and the product over whole lists."""
    spec, k = Explore(**keys), 3
    given_ = valued([0.9, 0.85, 0.6, 0.3, 0.1])
    above: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    chance: dict[tuple[int, ...], float] = {}
    whole: Counter[tuple[int, ...]] = Counter()
    for items, propensities in drawn(spec, given_, k):
        whole[tuple(items)] += 1
        for slot in range(k):
            above[tuple(items[:slot])][items[slot]] += 1
            known = chance.setdefault(tuple(items[: slot + 1]), propensities[slot])
            assert known == propensities[slot], "the same slot, another chance"
    for before, counts in above.items():
        total = sum(counts.values())
        for item, count in counts.items():
            expected = chance[(*before, item)]
            assert abs(count / total - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / total) + 1e-12
    for items, count in whole.items():
        expected = float(np.prod([chance[items[: slot + 1]] for slot in range(k)]))
        assert abs(count / DRAWS - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-12


def test_weights_by_propensity_are_unbiased() -> None:
    """The mean of 1 / propensity over the draws that show an item at the top is 1 for every item: what IPS rests on."""
    given_ = valued([0.9, 0.8, 0.5, 0.2])
    weight_KN: dict[int, list[float]] = defaultdict(list)
    for items, propensities in drawn(Explore(rate=1, gamma=3), given_, 1):
        weight_KN[items[0]].append(1 / propensities[0])
    for weights in weight_KN.values():
        assert sum(weights) / DRAWS == pytest.approx(1, abs=0.06)
    assert set(weight_KN) == {0, 1, 2, 3}


def test_off_policy_values_can_be_read_from_the_slots() -> None:
    """Rows of a slot that explores, with a chance below 1, tell what always showing one item there would earn."""
    rng, click_K = np.random.default_rng(3), np.array([0.1, 0.6, 0.3, 0.2])
    rows = drawn(Explore(rate=0.5, gamma=3, slots=(0,)), valued([0.9, 0.8, 0.5, 0.2]), 3)
    item_N = np.array([items[0] for items, _ in rows])
    propensity_N = np.array([propensities[0] for _, propensities in rows])
    assert (propensity_N < 1).all()
    reward_N = (rng.random(DRAWS) < click_K[item_N]).astype(float)
    assert reward_N.mean() < 0.3, "the log's own policy likes the first item"
    for item, click in enumerate(click_K):
        log = Logged(reward_N, propensity_N, (item_N == item).astype(float))
        for estimator in (IPS(), SNIPS()):
            assert estimator(log).value == pytest.approx(click, abs=0.05)


def test_places_that_do_not_explore_show_who_stands_first() -> None:
    for items, propensities in drawn(
        Explore(rate=1, draw="uniform", slots=(2,), shortlist=4), valued(range(10, 0, -1)), 5, 200
    ):
        assert items[:2] == [0, 1]
        assert items[2] in (2, 3, 4, 5)
        assert items[3:] == [each for each in range(10) if each not in items[:3]][:2]
        assert propensities == [1, 1, 0.25, 1, 1]


def test_a_slot_below_the_list_does_nothing() -> None:
    for items, propensities in drawn(Explore(rate=1, draw="uniform", slots=(7,)), valued(range(10, 0, -1)), 5, 20):
        assert items == [0, 1, 2, 3, 4]
        assert propensities == [1] * 5


def test_more_gamma_explores_less() -> None:
    given_ = slate(50)
    kept = [
        np.mean([items[0] == 0 for items, _ in drawn(Explore(rate=1, gamma=gamma), given_, 1, 3000)])
        for gamma in (0, 100, 10_000)
    ]
    assert kept == sorted(kept)
    assert kept[0] == pytest.approx(1 / 20, abs=0.02)
    assert kept[-1] > 0.9


@pytest.mark.parametrize("weights", [[1.0, 2.0, 4.0], [3.0, -1.0, 0.0]])
def test_the_reward_is_the_value_between_0_and_1(weights: list[float]) -> None:
    reward_K = reward(slate(200, weight_T=weights))
    assert ((reward_K >= 0) & (reward_K <= 1)).all()
    best, worst = np.array([[1.0 if w > 0 else 0.0 for w in weights], [1.0 if w < 0 else 0.0 for w in weights]])
    both_KT = np.stack([best, worst])
    ends = slate(2, weight_T=weights, probability_KT=both_KT, value_K=both_KT @ weights)
    assert reward(ends) == pytest.approx([1, 0])


def test_without_tasks_scores_are_stretched() -> None:
    assert reward(valued([7.0, 5.0, 3.0])) == pytest.approx([1, 0.5, 0])


def test_a_chain_is_checked_when_a_config_is_loaded() -> None:
    with pytest.raises(ValidationError, match=r"mmr after explore.*put explore last, once"):
        ServingConfig.model_validate({"rerank": [{"kind": "explore"}, {"kind": "mmr"}]})
    with pytest.raises(ValidationError, match="put explore last, once"):
        ServingConfig.model_validate({"rerank": [{"kind": "explore"}, {"kind": "explore"}]})
    with pytest.raises(ValidationError, match="names a place twice"):
        ServingConfig.model_validate({"rerank": [{"kind": "explore", "slots": [1, 1]}]})
    chain = ServingConfig.model_validate({"rerank": [{"kind": "mmr"}, {"kind": "quotas"}, {"kind": "explore"}]}).rerank
    assert [each.kind for each in chain] == ["mmr", "quotas", "explore"]
    again = TypeAdapter(ServingConfig).validate_json(ServingConfig(rerank=chain).model_dump_json())
    assert again.rerank == chain
