"""JointRank: designs, votes and aggregates against hand-worked numbers. Shapes: K = candidates."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slates import slate, valued

from recsys.rerank import JointRank, Slate
from recsys.rerank.blocks import connected, equi_replicate, latin, meetings, triangular
from recsys.rerank.jointrank import pagerank, votes, win_rate

RNG = np.random.default_rng(0)


def of_tasks(probability_KT: list[list[float]], weight_T: list[float]) -> Slate:
    array_KT = np.array(probability_KT, np.float32)
    value_K = array_KT @ np.array(weight_T)
    return slate(len(array_KT), tasks=len(weight_T), weight_T=weight_T, probability_KT=array_KT, value_K=value_K)


def test_the_square_by_hand() -> None:
    """Four candidates in blocks of two, true order 2 > 0 > 3 > 1: the numbers of the authors' code."""
    assert [each.tolist() for each in latin(4)] == [[0, 1], [2, 3], [0, 2], [1, 3]]
    met_KK = np.zeros((4, 4))
    for first, second in latin(4):
        met_KK[[first, second], [second, first]] = 1
    above_KK = votes(valued([2.0, 0.0, 3.0, 1.0]))
    assert win_rate(above_KK, met_KK) == pytest.approx([0.5, 0, 1, 0.5])
    assert pagerank(above_KK * met_KK, 0.85) == pytest.approx([0.1959, 0.1375, 0.4706, 0.1959], abs=5e-5)


def test_the_triangle_by_hand() -> None:
    """Six candidates are the pairs of four lines: four blocks of three, each in two, any two together once at most."""
    assert [each.tolist() for each in triangular(6)] == [[0, 1, 3], [0, 2, 4], [1, 2, 5], [3, 4, 5]]


def test_coverage_of_pairs() -> None:
    """100 in blocks of 10, each twice: at most 20 * 45 of 4,950 pairs meet, and nearly all of these are different ones."""
    shares = []
    for seed in range(10):
        met_KK = meetings("equi_replicate", 100, block=10, repeats=2, seed=seed)
        assert met_KK.sum() == 2 * 20 * 45
        assert (met_KK.sum(1) == 2 * 9).all()
        shares.append(np.count_nonzero(met_KK) / (100 * 99))
    assert 0.165 < np.mean(shares) < 0.1818


@given(count=st.integers(1, 60), block=st.integers(2, 12), repeats=st.integers(2, 5), seed=st.integers(0, 100))
def test_each_stands_in_as_many_blocks_and_never_twice_in_one(count: int, block: int, repeats: int, seed: int) -> None:
    blocks = equi_replicate(count, block, repeats, np.random.default_rng(seed))
    for each in blocks:
        assert len(set(each.tolist())) == len(each) <= max(block, min(count, block))
    times_K = np.bincount(np.concatenate(blocks), minlength=count)
    assert set(times_K.tolist()) == ({repeats} if count > block else {1})


@pytest.mark.parametrize("design", [latin, triangular])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 9, 10, 17, 100])
def test_any_two_meet_at_most_once(design: object, count: int) -> None:
    blocks = design(count)  # type: ignore[operator]
    times_K, met_KK = np.zeros(count, int), np.zeros((count, count), int)
    for each in blocks:
        times_K[each] += 1
        met_KK[np.ix_(each, each)] += 1
    assert set(times_K.tolist()) == {2}
    np.fill_diagonal(met_KK, 0)
    assert met_KK.max(initial=0) <= 1
    assert connected(met_KK)


@settings(max_examples=50)
@given(
    design=st.sampled_from(["equi_replicate", "latin", "triangular"]), count=st.integers(1, 50), block=st.integers(2, 8),
    repeats=st.integers(2, 4), seed=st.integers(0, 50),
)  # fmt: skip
def test_a_path_leads_from_anyone_to_anyone(design: str, count: int, block: int, repeats: int, seed: int) -> None:
    met_KK = meetings(design, count, block=block, repeats=repeats, seed=seed)  # type: ignore[arg-type]
    assert connected(met_KK)
    assert (met_KK == met_KK.T).all()


def test_parts_that_never_meet_are_not_connected() -> None:
    met_KK = np.zeros((4, 4), np.uint8)
    met_KK[[0, 1, 2, 3], [1, 0, 3, 2]] = 1
    assert not connected(met_KK)
    met_KK[[1, 2], [2, 1]] = 1
    assert connected(met_KK)


def test_each_task_votes_with_its_weight() -> None:
    """The first task puts 0 above 1 above 2, the second, of three times the weight, 2 above both others, which are equal."""
    above_KK = votes(of_tasks([[0.9, 0.1], [0.8, 0.1], [0.1, 0.2]], [1.0, 3.0]))
    assert above_KK.tolist() == [[0, 0.25, 0.25], [0, 0, 0.25], [0.75, 0.75, 0]]


def test_a_negative_weight_votes_for_the_lower_one() -> None:
    assert votes(of_tasks([[0.9], [0.1]], [-2.0])).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("aggregate", ["pagerank", "win_rate"])
@pytest.mark.parametrize("design", ["equi_replicate", "latin", "triangular"])
@pytest.mark.parametrize("count", [4, 9, 30, 200])
def test_one_voter_gets_its_best_to_the_top(aggregate: str, design: str, count: int) -> None:
    """One task alone: with everyone against everyone its order is found, with blocks the best are near the top."""
    given_ = slate(count, tasks=1, weight_T=[1.0], distinct=10**6)
    whole = JointRank(block=count, aggregate=aggregate)(given_, 10, RNG)  # type: ignore[arg-type]
    assert whole.place_N.tolist() == list(range(count))
    found = JointRank(design=design, aggregate=aggregate)(given_, 10, RNG).place_N  # type: ignore[arg-type]
    agree = np.corrcoef(found, np.arange(count))[0, 1]
    assert agree > 0.7


@pytest.mark.parametrize("aggregate", ["pagerank", "win_rate"])
def test_the_scale_of_a_task_does_not_matter(aggregate: str) -> None:
    given_ = slate(60, seed=2)
    scaled = Slate(**(vars(given_) | {"probability_KT": given_.probability_KT**3 * np.float32([0.01, 1, 0.3])}))
    spec = JointRank(aggregate=aggregate)  # type: ignore[arg-type]
    assert spec(given_, 10, RNG).place_N.tolist() == spec(scaled, 10, RNG).place_N.tolist()


def test_chance_has_no_part() -> None:
    first, second = (JointRank()(slate(50), 10, np.random.default_rng(seed)).place_N for seed in (1, 2))
    assert (first == second).all()
    other = JointRank(seed=1)(slate(50), 10, RNG).place_N
    assert (other != first).any()


def test_who_was_not_ranked_stays_behind() -> None:
    given_ = slate(12)
    given_.probability_KT[5:] = np.nan
    found = JointRank()(given_, 10, RNG).place_N
    assert sorted(found[:5].tolist()) == [0, 1, 2, 3, 4]
    assert all(a < b for a, b in pairwise(found[5:].tolist()))


def test_pagerank_sums_to_one_and_solves_its_equation() -> None:
    wins_KK = votes(slate(40)) * meetings("equi_replicate", 40, block=8, repeats=3, seed=0)
    score_K = pagerank(wins_KK, 0.85)
    lost_K = wins_KK.sum(0)
    step_KK = np.where(lost_K > 0, wins_KK / np.maximum(lost_K, 1e-9), 1 / 40)
    assert score_K.sum() == pytest.approx(1)
    assert score_K == pytest.approx(0.15 / 40 + 0.85 * step_KK @ score_K, abs=1e-6)
