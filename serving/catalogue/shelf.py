"""What a catalogue file means for the items of one bundle: rows of 0 and -inf that retrieval adds to its scores.

Shapes: I = rows of the item table, A = items named.
"""

from collections import OrderedDict

import numpy as np
import pyarrow.compute as pc

from recsys.columns import FIRST_ID, feature
from recsys.columns import ITEM_ID as ITEM_TEXT
from serving.bundle.bundle import Array, Bundle
from serving.catalogue.file import ALWAYS_MS, NEVER_MS, Listing

KEPT_BYTES = 64 * 2**20  # of rows; a row of a million items has 4 MB
Key = tuple[int | None, frozenset[int] | None, str | None]


class Shelf:
    """Answers for one bundle and one reading of the file; items that the file does not name are sold everywhere, always.

    Rows are made once and kept: for a time in which nothing begins or ends to be sold, a set of categories, a region.
    """

    def __init__(self, bundle: Bundle, listing: Listing | None) -> None:
        num_items = bundle.facts.num_items
        self.all_1I = bundle.no_bias_1I
        name = next(iter(bundle.facts.category), None)
        self._categories = None if name is None else bundle.items[feature(name)].combine_chunks()
        self._rows: OrderedDict[Key, Array] = OrderedDict()
        self._most_rows = max(4, KEPT_BYTES // (4 * num_items))
        self._change_ms = np.empty(0, np.int64)
        self._moment, self._open_I = -1, np.empty(0, dtype=bool)
        self.listed = listing is not None
        if listing is None:
            return
        row_N = pc.index_in(listing.item_id, bundle.items[ITEM_TEXT].cast(listing.item_id.type))
        dense_N = np.asarray(pc.fill_null(row_N, 0).to_numpy(zero_copy_only=False), dtype=np.int64)  # 0: not of this bundle
        self._stock_I = _spread(num_items, dense_N, listing.stock_N, True)
        self._from_ms_I = _spread(num_items, dense_N, listing.from_ms_N, ALWAYS_MS)
        self._until_ms_I = _spread(num_items, dense_N, listing.until_ms_N, NEVER_MS)
        self._anywhere_I = _spread(num_items, dense_N, listing.anywhere_N, True)
        self._regions = {region: dense_N[row_M] for region, row_M in listing.region_rows.items()}
        times = np.unique(np.concatenate([self._from_ms_I, self._until_ms_I]))
        self._change_ms = times[(times > ALWAYS_MS) & (times < NEVER_MS)]

    def row(self, now_ms: int | None, categories: frozenset[int] | None = None, region: str | None = None) -> Array:
        """bias_1I: 0 for items of these categories that are sold in this region now, else -inf; not to be written to.

        `now_ms`: None leaves stock, availability and expiry out of account. Counted in whole seconds, so that a request seldom
        makes a row anew: an item may be shown for up to a second after it expired.
        """
        at_ms = None if now_ms is None or not self.listed else now_ms // 1000 * 1000
        moment = None if at_ms is None else int(self._change_ms.searchsorted(at_ms, side="right"))
        key = (moment, categories, region if self.listed else None)
        if key == (None, None, None):
            return self.all_1I
        if (row_1I := self._rows.get(key)) is not None:
            self._rows.move_to_end(key)
            return row_1I
        sold_I = np.ones(self.all_1I.shape[1], dtype=bool) if at_ms is None else self._open(at_ms, moment or 0).copy()
        if region is not None and self.listed:
            sold_I &= self._sold_in(region)
        if categories is not None:
            sold_I &= self._of(categories)
        self._rows[key] = row_1I = bias(sold_I)
        if len(self._rows) > self._most_rows:
            self._rows.popitem(last=False)
        return row_1I

    def _open(self, at_ms: int, moment: int) -> Array:
        if self._moment != moment:
            self._open_I = self._stock_I & (self._from_ms_I <= at_ms) & (at_ms < self._until_ms_I)
            self._moment = moment
        return self._open_I

    def _sold_in(self, region: str) -> Array:
        sold_I = self._anywhere_I.copy()
        sold_I[self._regions.get(region, [])] = True
        return sold_I

    def _of(self, categories: frozenset[int]) -> Array:
        """Items that have one of the categories, among others."""
        assert self._categories is not None
        wanted = np.array(sorted(categories))
        if not hasattr(self._categories, "offsets"):
            return np.isin(self._categories.to_numpy(), wanted)
        start_J = self._categories.offsets.to_numpy()
        fits_V = np.isin(self._categories.values.to_numpy(), wanted)
        sum_V = np.concatenate([[0], np.cumsum(fits_V)])
        some_I: Array = sum_V[start_J[1:]] > sum_V[start_J[:-1]]
        return some_I


def bias(sold_I: Array) -> Array:
    row_1I = np.where(sold_I, np.float32(0), np.float32(-np.inf))[None]
    row_1I.flags.writeable = False
    return row_1I


def only(row_1I: Array, item_A: Array) -> Array:
    """The row for no other items than these."""
    limited_1I = np.full(row_1I.shape, -np.inf, np.float32)
    limited_1I[0, item_A[item_A >= FIRST_ID]] = row_1I[0, item_A[item_A >= FIRST_ID]]
    return limited_1I


def _spread(num_items: int, dense_N: Array, value_N: Array, default: int | bool) -> Array:
    spread_I = np.full(num_items, default, value_N.dtype)
    spread_I[dense_N] = value_N
    spread_I[:FIRST_ID] = default
    return spread_I
