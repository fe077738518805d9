"""Every member of the union Reranker, by one contract. Shapes: K = candidates."""

import copy
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slates import slate, valued

from recsys.rerank import Reranker, Slate

RERANKERS = list(get_args(get_args(Reranker)[0]))
SIZES = [(0, 5), (1, 1), (1, 5), (3, 10), (10, 3), (21, 10), (200, 10)]
each_reranker = pytest.mark.parametrize("spec", RERANKERS, ids=lambda spec: spec.__name__)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def check(given_: Slate, k: int, spec: Any) -> np.ndarray:
    before = copy.deepcopy(given_)
    found = spec(given_, k, rng())
    count = len(given_.item_K)
    assert found.place_N.dtype.kind == "i"
    assert sorted(found.place_N.tolist()) == list(range(count)), "each candidate once"
    assert (found.propensity_N is not None) == spec.draws
    if found.propensity_N is not None:
        assert found.propensity_N.shape == (count,)
        assert ((found.propensity_N > 0) & (found.propensity_N <= 1)).all()
        assert (found.propensity_N[k:] == 1).all()
    for each in fields(Slate):
        np.testing.assert_equal(getattr(given_, each.name), getattr(before, each.name), err_msg="the slate was changed")
    return found.place_N


@each_reranker
@pytest.mark.parametrize(("count", "k"), SIZES)
def test_all_candidates_in_a_new_order(spec: Any, count: int, k: int) -> None:
    place_N = check(slate(count), k, spec())
    again = spec()(slate(count), k, rng())
    assert (again.place_N == place_N).all(), "the same numbers, another list"


@each_reranker
@given(
    count=st.integers(0, 30), k=st.integers(1, 40), seed=st.integers(0, 10**6), tasks=st.integers(0, 3),
    distinct=st.sampled_from([1, 2, 1000]), weights=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 8.0]), min_size=3, max_size=3),
)  # fmt: skip
def test_any_slate(spec: Any, count: int, k: int, seed: int, tasks: int, distinct: int, weights: list[float]) -> None:
    check(slate(count, seed=seed, tasks=tasks, weight_T=weights, distinct=distinct), k, spec())


@each_reranker
def test_what_the_ranker_did_not_see_is_no_obstacle(spec: Any) -> None:
    whole = slate(20)
    whole.probability_KT[8:] = np.nan
    whole.value_K[8:] = whole.value_K[7]
    check(whole, 10, spec())


@each_reranker
def test_behind_the_first_k_the_others_stay_as_they_were(spec: Any) -> None:
    if spec.__name__ == "JointRank":
        return  # it orders all of them
    rest = spec()(slate(30), 6, rng()).place_N[6:]
    assert (np.diff(rest) > 0).all()


@each_reranker
@pytest.mark.parametrize("count", [2, 7, 50])
def test_equals_keep_their_order(spec: Any, count: int) -> None:
    same = valued([0.5] * count, vector_KD=np.ones((count, 1)), category_K=np.arange(count) + 2)
    given_spec = spec(gamma=1e9, rate=1e-9) if spec.draws else spec()
    assert given_spec(same, count, rng()).place_N.tolist() == list(range(count))


@each_reranker
def test_nothing_is_read_that_is_not_named(spec: Any) -> None:
    """Without vectors and categories where the reranker says that it does not read them."""
    changed: dict[str, Any] = {}
    if not spec.reads_vectors:
        changed["vector_KD"] = np.empty((20, 0))
    if not spec.reads_categories:
        changed |= {"category_K": np.ones(20, np.int32), "code_of": {}}
    assert (check(slate(20, **changed), 10, spec()) == check(slate(20), 10, spec())).all()
