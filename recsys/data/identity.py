"""What a dataset holds, whatever the order of its rows and the layout of its files: a hash over canonical rows.

Every row gives 64 bits from its external ids and values; the content hash is their sum modulo 2^64 and the number of rows. It
finds accidents, not forgeries. Shapes: N = rows.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from recsys.columns import CONTEXT_PREFIX, ITEM, LABEL_PREFIX, USER, VALUE_PREFIX

_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def row_hashes(rows: pl.DataFrame, hash_of: Mapping[str, np.ndarray], columns: list[str]) -> np.ndarray:
    """One 64-bit hash a row. `hash_of[name]` gives the hash of every dense id of a column of ids."""
    hash_N = np.full(len(rows), _ODD)
    for name in columns:
        values = rows[name].to_numpy()
        bits = hash_of[name][values] if name in hash_of else _bits(values)
        hash_N = (hash_N ^ bits) * _ODD
        hash_N ^= hash_N >> _SHIFT
    return hash_N


def hashed_columns(columns: list[str]) -> list[str]:
    """The columns that make a row what it is, in an order of their own, values of labels yet to be fitted included.

    What the build adds is not among them.
    """
    plain = [name for name in ("time_ms", "in_history", "slot", "propensity", "weight") if name in columns]
    named = sorted(name for name in columns if name.startswith((LABEL_PREFIX, CONTEXT_PREFIX, VALUE_PREFIX)))
    return [USER, ITEM, *plain, *named]


def content(before: str | None, hash_sum: int, rows: int) -> str:
    """The content hash of `rows` more rows than `before`."""
    sum_before, rows_before = (int(before.split("-")[0], 16), int(before.split("-")[1])) if before else (0, 0)
    return f"{(sum_before + hash_sum) % 2**64:016x}-{rows_before + rows}"


def _bits(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.float32:
        values = np.where(np.isnan(values), np.float32("nan"), values + np.float32(0)).view(np.uint32)
    return values.astype(np.uint64)
