"""Planted propensities are recovered, hand-worked numbers, and what each source refuses. Shapes as in recsys/debias."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from debias_world import World

from recsys.columns import FIRST_ID, ITEM, POSITION, PROPENSITY, SLOT, SPLIT, TRAIN, USER, label
from recsys.dataset import Dataset
from recsys.debias.examination import Examination, missed
from recsys.debias.learned import Learned
from recsys.debias.logged import Logged
from recsys.debias.logistic import cross, logistic
from recsys.debias.naive_bayes import NaiveBayes
from recsys.debias.popularity import Popularity
from recsys.errors import InputError
from recsys.jagged import Jagged
from recsys.simulate.log import impressions, visits
from recsys.simulate.settings import Simulation
from recsys.simulate.world import first_tastes, make_world


def small(make_dataset: Callable[..., Dataset], **columns: Any) -> Dataset:
    """Four rows of the items 2, 2, 3, 3."""
    frame = {
        USER: np.array([2, 3, 2, 3], np.int32),
        ITEM: np.array([2, 2, 3, 3], np.int32),
        POSITION: np.zeros(4, np.int32),
        SPLIT: np.zeros(4, np.int8),
        label("click"): np.array([1, 0, 1, 0], np.float32),
    }
    return make_dataset([[2], [3]], num_items=12, examples=pl.DataFrame(frame | columns))


def test_popularity_by_hand() -> None:
    """Rows 0, 0, 9, 4, 1: of the most frequent 1, 2/3 and 1/3 at exponent 0.5; what is not in the log counts as once."""
    assert Popularity(exponent=0.5).of_items(np.array([0, 0, 9, 4, 1])) == pytest.approx([1 / 3, 1 / 3, 1, 2 / 3, 1 / 3])
    assert Popularity(exponent=1).of_items(np.array([9, 4])) == pytest.approx([1, 4 / 9])
    assert Popularity(exponent=0).of_items(np.array([9, 4, 0])).tolist() == [1, 1, 1]


def test_popularity_recovers_planted_exposure(world: World) -> None:
    """Over all users an item's exposure is its mean chance; counted from 7200 rows, so within sampling noise."""
    data, expected_I = world.dataset, world.chance_UI.mean(0)
    propensity_X = Popularity(exponent=1).fit(data, data.example_rows(TRAIN), "click")
    found_I = np.array([propensity_X[world.item_X == item].mean() for item in range(len(expected_I))])
    frequent_I = expected_I > 0.02
    np.testing.assert_allclose((found_I / expected_I * expected_I.max())[frequent_I], 1, atol=0.2)


def test_logged_is_the_column(world: World) -> None:
    data = world.dataset
    np.testing.assert_allclose(
        Logged().fit(data, data.example_rows(TRAIN), "click"), world.chance_UI[world.user_X, world.item_X], rtol=1e-6
    )


def test_learned_recovers_planted_exposure(world: World) -> None:
    """The chance of an item for a user of a country follows from popularity and the cross of country and genre."""
    data, truth_X = world.dataset, world.chance_UI[world.user_X, world.item_X]
    learned_X = Learned().fit(data, data.example_rows(TRAIN), "click")
    popular_X = Popularity(exponent=1).fit(data, data.example_rows(TRAIN), "click")
    popular_X = popular_X * np.exp(np.log(truth_X).mean() - np.log(popular_X).mean())  # the best factor there is

    def error(propensity_X: np.ndarray) -> float:
        return float(np.abs(np.log(propensity_X) - np.log(truth_X)).mean())

    assert error(learned_X) < 0.15
    assert error(learned_X) < error(popular_X) / 2
    assert (1 / learned_X).mean() == pytest.approx(world.chance_UI.shape[1], rel=0.15)  # E[1 / P(item | user)] = items


def test_the_classifier_finds_planted_weights() -> None:
    from scipy import sparse

    rng = np.random.default_rng(1)
    design_NK = np.concatenate([np.ones((20_000, 1)), rng.standard_normal((20_000, 2))], axis=1)
    label_N = (rng.random(20_000) < 1 / (1 + np.exp(-design_NK @ [-0.5, 1.0, -2.0]))).astype(float)
    assert logistic(sparse.csr_array(design_NK), label_N, 0.0, 100) == pytest.approx([-0.5, 1.0, -2.0], abs=0.1)


def test_a_cross_has_every_pair_of_codes() -> None:
    crossed = cross(Jagged.from_lists([[1, 2], [0], []]), Jagged.from_lists([[3, 4], [2], [1]]), 10)
    assert crossed.offset_U1.tolist() == [0, 4, 5, 5]
    assert crossed.item_E.tolist() == [13, 14, 23, 24, 2]


def test_naive_bayes_by_hand() -> None:
    """P(o) = .08, P(y=1) = .4, P(y=1 | o) = .6: .12 for a positive, .053333 for a negative."""
    assert NaiveBayes(positive_share=0.4).of_labels(0.6, 0.08) == pytest.approx((0.053333, 0.12), abs=1e-6)


def test_naive_bayes_counts_its_shares(make_dataset: Callable[..., Dataset]) -> None:
    """4 rows of 2 users times 10 items: P(o) = .2; half are positive."""
    data = small(make_dataset)
    propensity_X = NaiveBayes(positive_share=0.25).fit(data, data.example_rows(TRAIN), "click")
    assert propensity_X == pytest.approx([0.4, 0.4 / 3, 0.4, 0.4 / 3])


def test_naive_bayes_recovers_planted_selection() -> None:
    """People rate a tenth of what they like and a fortieth of the rest; the ratio of propensities is 4."""
    rng = np.random.default_rng(2)
    liked = rng.random(200_000) < 0.3
    is_logged = rng.random(200_000) < np.where(liked, 0.1, 0.025)
    negative, positive = NaiveBayes(positive_share=0.3).of_labels(liked[is_logged].mean(), is_logged.mean())
    assert (negative, positive) == pytest.approx((0.025, 0.1), rel=0.05)


def test_examination_by_hand() -> None:
    """theta = .8, gamma = .5 and no click: looked at with .666667, would have been clicked with .166667."""
    assert missed(np.array(0.8), np.array(0.5)) == pytest.approx((0.666667, 0.166667), abs=1e-6)


def test_the_first_iteration_of_em_by_hand() -> None:
    """Item 0 at slots 0 and 1, 4 impressions each, 2 clicks and 1. From theta = (1, .5), gamma = .5: without a click the first
    slot was looked at, the second with 1/3, and the item at the second would have been clicked with 1/3.
    theta_1 = (1 + 3 / 3) / 4 = .5; gamma = (2 + 1 + 3 / 3) / 8 = .5."""
    slot, clicked = np.repeat([0, 1], 4), np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    curve = Examination(iterations=1).curve(slot, np.zeros(8, int), clicked)
    assert curve.theta_K == pytest.approx([1, 0.5])
    assert curve.gamma_Q == pytest.approx([0.5])
    longer = Examination(iterations=1).curve(slot, np.zeros(8, int), np.array([1, 1, 1, 0, 1, 0, 0, 0], bool))
    assert longer.gamma_Q == pytest.approx([0.625])


def test_the_likelihood_never_falls_and_the_curve_of_the_simulator_is_found() -> None:
    """Slot s is looked at with probability (s + 1) ** -position_decay."""
    spec = Simulation(users=500, items=60, categories=6, events=300_000, slots=6, days=1, position_decay=0.8, seed=3)
    world, rng = make_world(spec), np.random.default_rng(3)
    taste_UD = first_tastes(spec, world)
    events, _ = impressions(spec, world, taste_UD, *visits(spec, world, taste_UD, 50_000, 86_400_000, rng), rng)
    curve = Examination().curve(events["slot"].to_numpy(), events["item"].to_numpy(), events["click"].to_numpy() == 1)
    assert (np.diff(curve.log_likelihood) >= -1e-12).all()
    assert len(curve.log_likelihood) > 5
    assert curve.theta_K[0] == 1
    np.testing.assert_allclose(curve.theta_K, np.arange(1.0, 7) ** -0.8, rtol=0.08)


def test_examination_weighs_clicks_alone(world: World) -> None:
    data = world.dataset
    row_X = data.example_rows(TRAIN)
    propensity_X = Examination().fit(data, row_X, "click")
    click_X, slot_X = data.examples[label("click")][row_X] == 1, data.examples[SLOT][row_X]
    assert (propensity_X[~click_X] == 1).all()
    found_K = [np.unique(propensity_X[click_X & (slot_X == slot)]).item() for slot in range(4)]
    np.testing.assert_allclose(found_K, world.theta_K, rtol=0.15)


def test_what_the_log_lacks_is_named(make_dataset: Callable[..., Dataset]) -> None:
    data = small(make_dataset)
    row_X = data.example_rows(TRAIN)
    for spec, words in (
        (Logged(), r"data\.events\.propensity above 0.* 4 of 4 have none"),
        (Learned(), "reads features of items"),
        (Examination(), r"data\.events\.slot.* 4 of 4 have none"),
    ):
        with pytest.raises(InputError, match=words):
            spec.fit(data, row_X, "click")


def test_columns_without_a_use_are_refused(make_dataset: Callable[..., Dataset]) -> None:
    """A propensity of 0, items that never change their slot, labels of one class."""
    data = small(
        make_dataset,
        **{
            PROPENSITY: np.array([0.5, 0, 0.5, np.nan], np.float32),
            SLOT: np.array([0, 0, 1, 1], np.int32),
            label("all"): np.ones(4, np.float32),
        },
    )
    row_X = data.example_rows(TRAIN)
    with pytest.raises(InputError, match="2 of 4 have none"):
        Logged().fit(data, row_X, "click")
    with pytest.raises(InputError, match="items that were at several of them"):
        Examination().fit(data, row_X, "click")
    with pytest.raises(InputError, match="every training label of task 'all' is the same"):
        NaiveBayes(positive_share=0.5).fit(data, row_X, "all")


def test_the_planted_world_has_what_it_says(world: World) -> None:
    assert world.dataset.num_items == world.chance_UI.shape[1] + FIRST_ID
    np.testing.assert_allclose(world.chance_UI.sum(1), 1)
