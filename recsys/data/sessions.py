"""Where the log is cut into sessions, each session becomes a user of its own, called USER#NUMBER."""

import numpy as np
import polars as pl

from recsys.columns import USER
from recsys.data import Data
from recsys.data.arrow import read_arrow, write_arrow
from recsys.data.runs import SESSION
from recsys.data.settle import Settled
from recsys.data.steps import Sessions


def has_sessions(data: Data) -> bool:
    return any(isinstance(step, Sessions) for step in data.steps)


def users_of(sessions: pl.Series) -> pl.Series:
    """The user of every session, by their names."""
    return sessions.str.replace("#[0-9]+$", "")


def cut_into_sessions(settled: list[Settled], values: dict[str, pl.Series]) -> None:
    """Rewrite the users of settled rows and their values."""
    keys = [_key(read_arrow(found.out)) for found in settled]
    known = np.unique(np.concatenate(keys))
    for found, key_N in zip(settled, keys, strict=True):
        users = pl.Series(USER, np.searchsorted(known, key_N).astype(np.int32))
        write_arrow(read_arrow(found.out).drop(SESSION).with_columns(users), found.out)
    sessions = pl.DataFrame({"user": values[USER].gather(known >> 32), "number": known & 0xFFFFFFFF})
    values[USER] = sessions.select(pl.format("{}#{}", "user", pl.col("number") + 1))["user"]


def _key(rows: pl.DataFrame) -> np.ndarray:
    return rows[USER].to_numpy().astype(np.int64) << 32 | rows[SESSION].to_numpy()
