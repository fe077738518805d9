"""A log of ratings split at random within each user, with false positives planted in its training part.

Shapes: R = rows of the log, U = users, I = items.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

TRAIN, VALID, TEST = "train", "valid", "test"
VALID_SHARE, TEST_SHARE = 0.1, 0.2
SPLIT_SEED = 0  # the same held-out events for every run
USER, ITEM, TIME = "user_id", "item_id", "time_s"
COLUMNS = {
    "inter.parquet": {"user_id:token": USER, "item_id:token": ITEM, "timestamp:float": TIME},
    "ratings.parquet": {"user_id": USER, "movie_id": ITEM, "timestamp": TIME},
}
CONFIG = """
name: denoise
max_history: 200
data:
  events: {path: "*.parquet", user: user_id, item: item_id, time: time_s, time_unit: s}
  split: {kind: files, valid: valid.parquet, test: test.parquet}
evaluation: {request_time: last_event}
retriever:
  encoder: {kind: mean_pooling, dim: 64, dropout: 0.5}
  fit: {epochs: 30, batch_size: 16, patience: 5, learning_rate: 5.0e-4, embedding_learning_rate: 3.0e-3}
"""  # the split knows no order, and neither does this encoder


class Parts(NamedTuple):
    """Rows of user, item and time, sorted by user and time."""

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame


def read(folder: Path) -> pl.DataFrame:
    """The interactions of MovieLens-100K or MovieLens-1M as Parquet."""
    for name, columns in COLUMNS.items():
        if (folder / name).is_file():
            found = pl.read_parquet(folder / name).select(pl.col(old).cast(pl.Int64).alias(new) for old, new in columns.items())
            return found.sort(USER, TIME, ITEM)
    raise SystemExit(f"{folder} holds none of {list(COLUMNS)}: name a folder with one of them")


def held_out(log: pl.DataFrame) -> Parts:
    """A tenth of every user's events validates, a fifth tests."""
    lot = pl.Series("lot", np.random.default_rng(SPLIT_SEED).random(len(log)))
    place = log.with_columns(lot).select(((pl.col("lot").rank("ordinal") - 1) / pl.len()).over(USER)).to_series()
    is_test, is_valid = place < TEST_SHARE, place < TEST_SHARE + VALID_SHARE
    return Parts(log.filter(~is_valid), log.filter(is_valid & ~is_test), log.filter(is_test))


def with_noise(parts: Parts, share: float, seed: int) -> tuple[Parts, pl.DataFrame]:
    """The same parts with floor(share * n) more positives in each user's n training events, and what was added.

    Drawn evenly from the items that the user has in no part, so that noise is never right by chance (as PLD's protocol lets it
    be, Zhang et al. 2025), at times spread over the user's own.
    """
    rng = np.random.default_rng([SPLIT_SEED, seed])
    everything = pl.concat(parts)
    items = everything[ITEM].unique().sort().to_numpy()
    own = dict(everything.group_by(USER).agg(ITEM).iter_rows())
    added = []
    for user, first, last, count in parts.train.group_by(USER, maintain_order=True).agg(
        pl.col(TIME).min().alias("first"), pl.col(TIME).max().alias("last"), pl.len()
    ).iter_rows():  # fmt: skip
        free = np.setdiff1d(items, own[user], assume_unique=False)
        drawn = rng.choice(free, size=min(int(share * count), len(free)), replace=False)
        added.append(
            pl.DataFrame({USER: np.full(len(drawn), user), ITEM: drawn, TIME: rng.integers(first, last + 1, len(drawn))})
        )
    noise = pl.concat(added) if added else parts.train.clear()
    return parts._replace(train=pl.concat([parts.train, noise]).sort(USER, TIME, ITEM)), noise


def write(parts: Parts, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts._asdict().items():
        part.write_parquet(folder / f"{name}.parquet")
