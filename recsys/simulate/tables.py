"""What the service knows of its users and items, as tables. Titles and tags hint at an item's hidden vector."""

import numpy as np
import polars as pl

from recsys.simulate.settings import DAY_MS, Simulation
from recsys.simulate.words import (
    AGE_GROUPS,
    BRANDS_PER_CATEGORY,
    CATEGORIES,
    COUNTRIES,
    DEVICES,
    SYLLABLES,
    TAGS_PER_ITEM,
    WORDS,
)
from recsys.simulate.world import WORLD, Floats, World


def item_table(spec: Simulation, world: World, item_id: pl.Series, first_ms: int) -> pl.DataFrame:
    rng = np.random.default_rng([WORLD, spec.seed, 1])
    size = len(CATEGORIES)
    names = [CATEGORIES[c % size] + (f"-{c // size + 1}" if c >= size else "") for c in range(spec.categories)]
    brands = [_brand(number) for number in rng.permutation(spec.categories * BRANDS_PER_CATEGORY)]
    return pl.DataFrame(
        {
            "item_id": item_id,
            "category": pl.Series(names).gather(world.category_I),
            "brand": pl.Series(brands).gather(world.brand_I),
            "tags": pl.Series(WORDS).gather(world.word_IV.ravel()).reshape((-1, TAGS_PER_ITEM)).arr.to_list(),
            "created_ms": first_ms - rng.integers(730 * DAY_MS, size=spec.items),
        }
    ).with_columns(
        pl.concat_str(
            pl.col("brand").str.to_titlecase(), pl.col("tags").list.head(2).list.join(" "), "category", separator=" "
        ).alias("title")
    )


def user_table(spec: Simulation, world: World, user_id: pl.Series) -> pl.DataFrame:
    rng = np.random.default_rng([WORLD, spec.seed, 2])
    return pl.DataFrame(
        {
            "user_id": user_id,
            "country": pl.Series(COUNTRIES).gather(world.country_U),
            "age_group": pl.Series(AGE_GROUPS).gather(rng.choice(6, spec.users, p=[0.18, 0.27, 0.22, 0.15, 0.11, 0.07])),
            "device": pl.Series(DEVICES).gather(rng.choice(4, spec.users, p=[0.62, 0.25, 0.08, 0.05])),
        }
    )


def _brand(number: int) -> str:
    """A pronounceable name of two or more syllables, one for each number."""
    name = ""
    while number or len(name) < 4:
        number, syllable = divmod(int(number), len(SYLLABLES))
        name += SYLLABLES[syllable]
    return name


def ids(letter: str, count: int) -> pl.Series:
    return letter + pl.Series(np.arange(count)).cast(pl.String)


def lists(vector_ND: Floats) -> pl.Series:
    return pl.Series(vector_ND.astype(np.float32)).arr.to_list()
