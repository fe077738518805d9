"""MMR and quotas against hand-worked lists and plain loops. Shapes: K = candidates, D = dim."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from slates import CATEGORIES, slate, valued

from recsys.columns import FIRST_ID
from recsys.rerank import MMR, Quotas, Slate

RNG = np.random.default_rng(0)
NEWS, FILMS, SONGS = range(FIRST_ID, FIRST_ID + 3)


def twins() -> Slate:
    """Values 10, 9, 6, 0, stretched to 1, .9, .6, 0; the second is like the first, the others are like nobody."""
    return valued([10, 9, 6, 0], vector_KD=np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0]], float))


@pytest.mark.parametrize(
    ("trade_off", "order"),
    [
        (1.0, [0, 1, 2, 3]),
        # .5: after the first .45 - .5 < .3 for the third; then the second has -.05 and the last, an opposite, 0.
        (0.5, [0, 2, 3, 1]),
        # .8: .72 - .2 = .52 > .48 for the third.
        (0.8, [0, 1, 2, 3]),
        # .7: .63 - .3 = .33 < .42; then .33 > 0.
        (0.7, [0, 2, 1, 3]),
    ],
)
def test_value_against_likeness(trade_off: float, order: list[int]) -> None:
    assert MMR(trade_off=trade_off)(twins(), 4, RNG).place_N.tolist() == order


@pytest.mark.parametrize(("scale", "shift"), [(100.0, -7.0), (1e-3, 5.0)])
def test_the_scale_of_values_does_not_matter(scale: float, shift: float) -> None:
    plain = slate(40, seed=3)
    scaled = Slate(**(vars(plain) | {"value_K": plain.value_K * scale + shift}))
    assert MMR()(plain, 10, RNG).place_N.tolist() == MMR()(scaled, 10, RNG).place_N.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_mmr_is_the_greedy_loop(seed: int) -> None:
    given_, chosen = slate(25, seed=seed), []
    low, high = given_.value_K.min(), given_.value_K.max()
    for _ in range(8):
        scores = {}
        for each in set(range(25)) - set(chosen):
            likeness = max([max(0.0, float(given_.vector_KD[each] @ given_.vector_KD[other])) for other in chosen], default=0.0)
            scores[each] = 0.4 * (given_.value_K[each] - low) / (high - low) - 0.6 * likeness
        chosen.append(max(scores, key=lambda each: scores[each]))
    assert MMR(trade_off=0.4)(given_, 8, RNG).place_N[:8].tolist() == chosen


def test_mmr_makes_lists_more_varied() -> None:
    given_ = slate(100, seed=1)
    likeness = []
    for trade_off in (1.0, 0.7, 0.3):
        vector_KD = given_.vector_KD[MMR(trade_off=trade_off)(given_, 10, RNG).place_N[:10]]
        likeness.append(float(np.clip(vector_KD @ vector_KD.T, 0, None).sum()))
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > likeness[-1]


def of_categories(category_K: list[int]) -> Slate:
    return valued(list(range(len(category_K), 0, -1)), category_K=np.array(category_K, np.int32))


def chosen(spec: Quotas, category_K: list[int], k: int) -> list[int]:
    return spec(of_categories(category_K), k, RNG).place_N[:k].tolist()


FIVE_NEWS = [NEWS, NEWS, NEWS, NEWS, NEWS, FILMS, SONGS, FILMS]


@pytest.mark.parametrize(
    ("keys", "k", "expected"),
    [
        ({"at_most_each": 2}, 4, [0, 1, 5, 6]),
        ({"at_most_each": None}, 4, [0, 1, 2, 3]),
        ({"at_most_each": None, "at_most": {"news": 3}}, 4, [0, 1, 2, 5]),
        ({"at_most_each": 1, "at_most": {"news": 2}}, 4, [0, 1, 5, 6]),
        ({"at_most_each": None, "at_least": {"songs": 1}}, 4, [0, 1, 2, 6]),
        ({"at_most_each": None, "at_least": {"songs": 1, "films": 2}}, 4, [0, 5, 6, 7]),
        ({"at_most_each": 3, "at_least": {"films": 1}}, 4, [0, 1, 2, 5]),
        # Half of 4 is 2 of each, exactly.
        ({"at_most_each": None, "shares": {"films": 0.5}}, 4, [0, 1, 5, 7]),
        # .3 of 5 is between 1 and 2: one is set aside, the second has to be better than the others.
        ({"at_most_each": None, "shares": {"films": 0.3}}, 5, [0, 1, 2, 3, 5]),
        # Nothing left but what is forbidden: the list is as long as asked for.
        ({"at_most_each": 1}, 5, [0, 1, 2, 5, 6]),
        # More songs than there are: what there is.
        ({"at_most_each": None, "at_least": {"songs": 3}}, 4, [0, 1, 2, 6]),
        # More lower bounds than places: the best of what is needed.
        ({"at_most_each": None, "at_least": {"songs": 1, "films": 2}}, 2, [5, 6]),
    ],
)
def test_quotas_by_hand(keys: dict[str, Any], k: int, expected: list[int]) -> None:
    assert chosen(Quotas(**keys), FIVE_NEWS, k) == expected


def test_items_without_a_category_are_not_of_one() -> None:
    assert chosen(Quotas(at_most_each=1), [1, 1, 1, NEWS, NEWS], 4) == [0, 1, 2, 3]


@given(
    category_K=st.lists(st.integers(1, SONGS), min_size=1, max_size=14), k=st.integers(1, 8), most=st.integers(1, 4),
    least=st.dictionaries(st.sampled_from(CATEGORIES), st.integers(0, 3)),
)  # fmt: skip
def test_no_other_choice_within_the_bounds_is_worth_more(
    category_K: list[int], k: int, most: int, least: dict[str, int]
) -> None:  # fmt: skip
    """Against every subset of k candidates."""
    from itertools import combinations

    least = {name: min(number, most) for name, number in least.items()}
    spec, given_ = Quotas(at_most_each=most, at_least=least), of_categories(category_K)
    k = min(k, len(category_K))
    found = spec(given_, k, RNG).place_N[:k].tolist()
    assert found == sorted(found)
    kept = [subset for subset in combinations(range(len(category_K)), k) if within(category_K, subset, most, least)]
    best = max((given_.value_K[list(subset)].sum() for subset in kept), default=None)
    if best is not None:
        assert within(category_K, tuple(found), most, least)
        assert given_.value_K[found].sum() == best


def within(category_K: list[int], subset: tuple[int, ...], most: int, least: dict[str, int]) -> bool:
    counts = Counter(category_K[each] for each in subset)
    lowest = {FIRST_ID + CATEGORIES.index(name): number for name, number in least.items()}
    return all(count <= most for code, count in counts.items() if code >= FIRST_ID) and all(
        counts[code] >= number for code, number in lowest.items()
    )


@given(share=st.floats(0, 1), k=st.integers(1, 20), seed=st.integers(0, 1000))
def test_a_share_is_kept_to_within_one_item(share: float, k: int, seed: int) -> None:
    category_K = np.random.default_rng(seed).permutation([NEWS] * 20 + [FILMS] * 20).astype(np.int32)
    found = Quotas(at_most_each=None, shares={"news": share})(of_categories(category_K.tolist()), k, RNG).place_N[:k]
    news = int((category_K[found] == NEWS).sum())
    assert math.floor(round(share * k, 9)) <= news <= math.ceil(round(share * k, 9))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"at_least": {"news": 4}}, "raise at_most_each"),
        ({"at_least": {"news": 2}, "at_most": {"news": 1}}, "raise at_most"),
        ({"shares": {"news": 0.7, "films": 0.7}}, "add up to 1.4"),
        ({"shares": {"news": 0.7}, "at_least": {"news": 1}}, "name it once"),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Quotas(**keys)
