"""What a bundle recommends where its model has nothing to say, read from mapped files.

P = popular items, V = values of the segment's feature, I = rows of the item table, N = co-visits of an item.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.columns import FIRST_ID

Array = NDArray[Any]
POPULAR_FILE, SEGMENTS_FILE, COVISITS_FILE = "popular.npy", "segments.npy", "covisits.arrow"


@dataclass(frozen=True, eq=False)
class StandIns:
    popular_P: Array
    segment_VP: Array  # row = code of the segment's feature, PADDING_ID where it has fewer; no rows without a feature
    _start_I1: Array  # of each item's co-visits in the two arrays below
    _item_N: Array
    _score_N: Array

    @classmethod
    def open(cls, folder: Path) -> "StandIns":
        near = pa.ipc.open_file(pa.memory_map(str(folder / COVISITS_FILE))).read_all()
        lists = [near[name].combine_chunks() for name in ("item", "score")]
        segments = folder / SEGMENTS_FILE
        return cls(
            np.load(folder / POPULAR_FILE, mmap_mode="r", allow_pickle=False),
            np.load(segments, mmap_mode="r", allow_pickle=False) if segments.is_file() else np.empty((0, 0), np.int32),
            lists[0].offsets.to_numpy(),
            *(each.values.to_numpy() for each in lists),
        )

    def covisits(self, item: int) -> tuple[Array, Array]:
        """The items that others had near this one, best first, and how near, from 0 to 1."""
        part = slice(int(self._start_I1[item]), int(self._start_I1[item + 1]))
        return self._item_N[part], self._score_N[part]

    def popular_with(self, code: int) -> Array:
        """Items by popularity among users of this code of the segment's feature; none for a reserved or later code."""
        if not FIRST_ID <= code < len(self.segment_VP):
            return np.empty(0, np.int32)
        item_P = self.segment_VP[code]
        return item_P[item_P >= FIRST_ID]
