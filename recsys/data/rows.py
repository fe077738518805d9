"""Settled rows: where they lie and how they are ordered. Shapes: N = rows of a shard."""

from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import FIRST_ID, ITEM, ROW, TIME_MS, USER
from recsys.data.arrow import read_arrow


def dense_rows(path: Path, ids: Path) -> pl.DataFrame:
    """Settled rows with dense ids, those of dropped users and items left out."""
    rows = read_arrow(path)
    dense = {name: np.load(ids / f"{name}.npy", mmap_mode="r")[rows[name].to_numpy()] for name in (USER, ITEM)}
    rows = rows.with_columns([pl.Series(name, values) for name, values in dense.items()])
    keep = (dense[USER] >= FIRST_ID) & (dense[ITEM] >= FIRST_ID)
    return rows if keep.all() else rows.filter(pl.Series(keep))


def in_order(rows: pl.DataFrame) -> pl.DataFrame:
    """By user, time and row; rows come in the order of `ROW`."""
    if rows.is_empty():
        return rows
    user_N, time_N = rows[USER].to_numpy().astype(np.int64), rows[TIME_MS].to_numpy()
    earliest, bits = int(time_N.min()), max(1, int(time_N.max() - time_N.min()).bit_length())
    if bits + int(user_N.max()).bit_length() > 63:
        return rows.sort(USER, TIME_MS, ROW)
    key_N = (user_N << bits) | (time_N - earliest)
    order_N = np.argsort(key_N)  # several times faster than a stable sort, and the same where no two keys are equal
    if repeats(key_N[order_N]).any():
        order_N = np.argsort(key_N, kind="stable")
    return rows[order_N]


def repeats(value_N: np.ndarray) -> np.ndarray:
    """Whether a row has the value of the row before it."""
    return np.append(False, value_N[1:] == value_N[:-1])[: len(value_N)]


def neighbours(repeats_N: np.ndarray) -> np.ndarray:
    """Rows of runs longer than one, from whether each repeats the row before it."""
    return repeats_N | np.append(repeats_N[1:], False)[: len(repeats_N)]
