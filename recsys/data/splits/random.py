"""A share of every user's events, drawn by lot. Shapes: N = rows, E = timeline events among them in the order of their lots."""

from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from recsys.columns import IN_HISTORY, SPLIT, TEST, TRAIN, VALID
from recsys.data.runs import starts, sums, unit, whole
from recsys.data.splits.order import held_out_last
from recsys.spec import Spec

ROW_HASH = "row_hash"  # 64 bits of a row's content, the same wherever the row stands


class RandomPerUser(Spec):
    """A share of each user's timeline events validates and tests, at least one each; users with fewer than three only train.

    Every row draws a lot, the hash of the seed and its `row_hash` (the finaliser of SplitMix64, Steele et al. 2014,
    https://doi.org/10.1145/2660193.2660195), so that neither the order of rows nor the number of shards changes the outcome.
    A user's lowest lots test, the next ones validate. A row outside the timeline is drawn by itself, by the value of its lot.

    Held-out events move to the end of the timeline, so that no training history holds one. Test histories hold all of the
    user's training events, later ones too: the split lets a model see the future, so it flatters (Meng et al. 2020,
    https://arxiv.org/abs/2007.13237).
    """

    kind: Literal["random"] = "random"
    valid_share: float = Field(0.1, gt=0, lt=1)
    test_share: float = Field(0.1, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**64)
    causal: ClassVar[bool] = False

    @model_validator(mode="after")
    def _leaves_a_rest(self) -> "RandomPerUser":
        if self.valid_share + self.test_share >= 1:
            raise ValueError(f"valid_share {self.valid_share} + test_share {self.test_share} leave nothing to train on")
        return self

    def __call__(self, rows: pl.LazyFrame, *, cuts_ms: tuple[int, int] | None = None, ties: str = "file_order") -> pl.LazyFrame:
        """Rows need `row_hash`."""
        split = whole(self._split, unit(rows), ROW_HASH, IN_HISTORY, dtype=pl.Int8)
        return rows.with_columns(split.alias(SPLIT)).pipe(held_out_last)

    def _split(self, unit_N: np.ndarray, row_hash_N: np.ndarray, in_history_N: np.ndarray) -> np.ndarray:
        lot_N = _mixed(row_hash_N ^ _mixed(np.array([self.seed], np.uint64)))
        test_limit, held_out_limit = (np.uint64(s * 2.0**64) for s in (self.test_share, self.test_share + self.valid_share))
        split_N = np.select([lot_N < test_limit, lot_N < held_out_limit], [TEST, VALID], TRAIN)
        row_E = np.flatnonzero(in_history_N)
        row_E = row_E[_by_lot(unit_N[row_E], lot_N[row_E])]
        unit_E = unit_N[row_E]
        place_E = np.arange(len(row_E)) - starts(unit_E)
        total_E = sums(in_history_N, unit_N)[unit_E]
        num_test_E = np.maximum(1, _share_of(total_E, self.test_share))
        num_valid_E = np.minimum(np.maximum(1, _share_of(total_E, self.valid_share)), total_E - 1 - num_test_E)
        is_judged_E = total_E >= 3
        is_test_E = is_judged_E & (place_E < num_test_E)
        is_held_out_E = is_judged_E & (place_E < num_test_E + num_valid_E)
        split_N[row_E] = np.select([is_test_E, is_held_out_E], [TEST, VALID], TRAIN)
        return split_N


def _by_lot(unit_E: np.ndarray, lot_E: np.ndarray) -> np.ndarray:
    """Order by timeline, then lot, by one number for both: it holds the upper bits of the lot, the others are for ties."""
    bits = int(unit_E.max(initial=0)).bit_length() + 1
    key_E = unit_E << (64 - bits) | (lot_E >> np.uint64(bits)).astype(np.int64)
    order_E = np.argsort(key_E)
    return np.lexsort((lot_E, unit_E)) if (np.diff(key_E[order_E]) == 0).any() else order_E


def _share_of(total: np.ndarray, share: float) -> np.ndarray:
    return np.floor(total * share + 1e-9).astype(np.int64)  # 0.29 * 100 is a little less than 29


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Every bit of the outcome hangs on every bit that comes in."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
