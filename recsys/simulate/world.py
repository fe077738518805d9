"""What the simulated world is made of: catalogue, popularity, biases, tastes and how they drift.

Shapes: U users, I items, C categories, D latent dimensions, K tasks, H countries, V words of a category's vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.simulate.settings import Simulation
from recsys.simulate.words import BRANDS_PER_CATEGORY, COUNTRIES, TAGS_PER_ITEM, VOCABULARY, WORDS

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

TASKS = ("click", "long_view", "like", "purchase")  # a strictly nested funnel
CLICK = 0  # its place among the tasks
WORLD, DRIFT, CHUNK, TREND = 1, 2, 3, 4  # first word of each random stream


@dataclass(frozen=True)
class World:
    """What stays fixed while days pass, fashion aside (`trend.in_fashion`). Cumulative sums end at 1; `by_category_I` lists the
    items grouped by category."""

    centroid_CD: Floats
    successor_C: Ints  # category that tends to follow
    mass_C: Floats  # popularity of all items of a category, sums to 1
    category_I: Ints
    latent_ID: Floats
    within_I: Floats  # popularity of an item within its category
    by_category_I: Ints
    cumulative_I: Floats  # popularity summed in the order of by_category_I
    first_C: Ints  # where a category starts in by_category_I, and with one more entry where the last ends
    bias_IK: Floats
    brand_I: Ints
    word_IV: Ints  # three tags as indices into WORDS
    bias_UK: Floats
    country_U: Ints
    home_HD: Floats  # mean taste of a country
    activity_U: Floats  # cumulative


def make_world(spec: Simulation) -> World:
    """Everything drawn once: catalogue, popularity, biases, users' countries and activity."""
    rng = np.random.default_rng([WORLD, spec.seed])
    U, I, C, D, K = spec.users, spec.items, spec.categories, spec.latent_dim, len(TASKS)  # noqa: E741
    category_I = rng.permutation(np.concatenate([np.arange(C), rng.integers(C, size=I - C)])).astype(np.int32)
    centroid_CD = rng.standard_normal((C, D), np.float32) * np.float32(0.7**0.5)
    own_ID = rng.standard_normal((I, D), np.float32) * np.float32(0.3**0.5)
    rank_I = rng.permutation(I) + 1.0
    popularity_I = rank_I**-spec.zipf_exponent
    popularity_I /= popularity_I.sum()
    mass_C: Floats = np.bincount(category_I, popularity_I, C).astype(np.float64)
    by_category_I = np.argsort(category_I, kind="stable")
    first_C = np.searchsorted(category_I[by_category_I], np.arange(C + 1))
    cumulative_I = np.cumsum(popularity_I[by_category_I])

    # Brands and tags say something of an item's own vector and bias, so that text helps with items that have few clicks.
    brand_I = category_I * BRANDS_PER_CATEGORY + np.minimum(rng.geometric(0.35, I), BRANDS_PER_CATEGORY) - 1
    vocabulary_CV = np.argsort(rng.random((C, len(WORDS))), axis=1)[:, :VOCABULARY]
    word_IV = np.empty((I, TAGS_PER_ITEM), np.int32)
    for c in range(C):
        members = by_category_I[first_C[c] : first_C[c + 1]]
        word_VD = rng.standard_normal((VOCABULARY, D), np.float32)
        score_IV = np.einsum("id,vd->iv", own_ID[members], word_VD) / D**0.5
        score_IV += 0.2 * rng.gumbel(size=score_IV.shape)
        word_IV[members] = vocabulary_CV[c][np.argsort(-score_IV, axis=1)[:, :TAGS_PER_ITEM]]
    bias_IK = 0.3 * rng.standard_normal((I, K), np.float32)
    bias_IK[:, 0] += 0.2 * rng.standard_normal(C * BRANDS_PER_CATEGORY)[brand_I]

    share_H = 1 / np.arange(1.0, len(COUNTRIES) + 1)
    activity_U = np.cumsum(rng.lognormal(0, spec.activity_spread, U))
    return World(
        centroid_CD=centroid_CD,
        successor_C=np.roll(cycle := rng.permutation(C), -1)[np.argsort(cycle)],
        mass_C=mass_C,
        category_I=category_I,
        latent_ID=centroid_CD[category_I] + own_ID,
        within_I=popularity_I / mass_C[category_I],
        by_category_I=by_category_I,
        cumulative_I=cumulative_I / cumulative_I[-1],
        first_C=first_C,
        bias_IK=bias_IK,
        brand_I=brand_I,
        word_IV=word_IV,
        bias_UK=0.3 * rng.standard_normal((U, K), np.float32),
        country_U=rng.choice(len(COUNTRIES), U, p=share_H / share_H.sum()),
        home_HD=0.3 * rng.standard_normal((len(COUNTRIES), D), np.float32),
        activity_U=activity_U / activity_U[-1],
    )


def first_tastes(spec: Simulation, world: World) -> Floats:
    """taste_UD of the first day: normal around the country's mean."""
    rng = np.random.default_rng([DRIFT, spec.seed, 0])
    return world.home_HD[world.country_U] + rng.standard_normal((spec.users, spec.latent_dim), np.float32)


def drifted(spec: Simulation, world: World, taste_UD: Floats, day: int) -> Floats:
    """The next day's taste_UD: one step of a stationary AR(1) around the country's mean."""
    keep = 1 - spec.drift
    step_UD = np.random.default_rng([DRIFT, spec.seed, day]).standard_normal(taste_UD.shape, np.float32)
    step_UD *= np.float32((1 - keep**2) ** 0.5)
    step_UD += np.float32(keep) * taste_UD
    step_UD += (np.float32(1 - keep) * world.home_HD)[world.country_U]
    return step_UD
