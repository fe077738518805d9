"""What a server recommends where its model has nothing to say: co-visits, what is popular in a segment, what is popular.

Shapes: I = rows of the item table, P = popular items, V = values of the segment's feature, U = users, E = training events,
R = rows of a sparse table, N = cells of a sparse table, M = pairs of one block.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from recsys.columns import FIRST_ID, PADDING_ID, TRAIN
from recsys.dataset import Dataset
from recsys.jagged import Jagged, gather, ranges

COVISITS, POPULAR = 50, 1_000
SPAN = 3  # events of a timeline that are no further apart were visited together
RECENT = 1_000  # last events of a timeline whose neighbours count: one of a million events is a machine's
BLOCK_PAIRS = 2**23  # in memory at a time, or those of one item


def training_events(data: Dataset) -> Jagged:
    """Every user's timeline as far as it trains."""
    start_U, length_U = data.events(TRAIN)
    return Jagged(gather(data.item_E, start_U, length_U), np.concatenate([[0], np.cumsum(length_U)]))


def popular(count_I: np.ndarray) -> np.ndarray:
    """popular_P: items by falling count, the lower id first among equals; all of the catalogue where it is small."""
    order_I = np.lexsort((np.arange(len(count_I)), -count_I))
    return order_I[order_I >= FIRST_ID][:POPULAR].astype(np.int32)


def by_segment(training: Jagged, code: Jagged, num_items: int) -> np.ndarray:
    """segment_VP: the popular items of each value of a user feature, padded with 0. A user of several values counts in each."""
    values = int(code.item_E.max(initial=FIRST_ID - 1)) + 1
    users = len(training)
    event_UI = sp.csr_array((np.ones(len(training.item_E), np.int64), training.item_E, training.offset_U1), (users, num_items))
    code_UV = sp.csr_array((np.ones(len(code.item_E), np.int64), code.item_E, code.offset_U1), (users, values))
    code_UV.sum_duplicates()
    code_UV.data[:] = 1  # a value that a user has twice is one
    count_VI = (code_UV.T.tocsr() @ event_UI).tocsr()
    count_VI.sort_indices()
    best, _ = _best_of_rows(count_VI, count_VI.data.astype(np.float64), POPULAR)
    segment_VP = np.full((values, POPULAR), PADDING_ID, np.int32)
    segment_VP[np.arange(POPULAR) < best.lengths[:, None]] = best.item_E
    return segment_VP[:, : max(1, int(best.lengths.max(initial=0)))]


def covisits(training: Jagged, num_items: int) -> tuple[Jagged, np.ndarray]:
    """The items most often near each item, best first, and score_N of each: pairs of their events that are near, over
    2 SPAN sqrt(events of one x events of the other), which is between 0 and 1. No item is near itself."""
    recent = training.last(RECENT)
    total_I = np.bincount(recent.item_E, minlength=num_items).astype(np.float64)
    found = [_covisits_of(recent, total_I, events_M, *rows) for events_M, rows in _blocks(recent.item_E, num_items)]
    lengths = [best.lengths for best, _ in found]
    offset_I1 = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Jagged(np.concatenate([best.item_E for best, _ in found]), offset_I1), np.concatenate([score for _, score in found])


def _blocks(item_E: np.ndarray, num_items: int) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Consecutive items [begin, end) with the places of their events, which have at most BLOCK_PAIRS neighbours together."""
    order_E = np.argsort(item_E, kind="stable")
    until_I1 = np.concatenate([[0], np.cumsum(np.bincount(item_E, minlength=num_items))])
    begin, most = 0, max(1, BLOCK_PAIRS // (2 * SPAN))
    while begin < num_items:
        end = int(np.searchsorted(until_I1, until_I1[begin] + most, side="right")) - 1
        end = min(max(end, begin + 1), begin + BLOCK_PAIRS, num_items)
        yield order_E[until_I1[begin] : until_I1[end]], (begin, end)
        begin = end


def _covisits_of(recent: Jagged, total_I: np.ndarray, place_M: np.ndarray, begin: int, end: int) -> tuple[Jagged, np.ndarray]:
    """Of the items from `begin` to `end`, whose events are at `place_M`."""
    user_M = np.searchsorted(recent.offset_U1, place_M, side="right") - 1
    low_M, high_M = recent.offset_U1[user_M], recent.offset_U1[user_M + 1]
    keys = []
    for step in (*range(-SPAN, 0), *range(1, SPAN + 1)):
        near_M = place_M + step
        inside_M = (near_M >= low_M) & (near_M < high_M)
        row_M, other_M = recent.item_E[place_M[inside_M]].astype(np.int64), recent.item_E[near_M[inside_M]].astype(np.int64)
        apart_M = row_M != other_M
        keys.append((row_M[apart_M] - begin) * len(total_I) + other_M[apart_M])
    key_M = np.sort(np.concatenate(keys))
    first_N = np.flatnonzero(np.concatenate([[True], key_M[1:] != key_M[:-1]])) if len(key_M) else np.empty(0, np.int64)
    count_N, key_N = np.diff(np.append(first_N, len(key_M))), key_M[first_N]
    row_N, other_N = np.divmod(key_N, len(total_I))
    cells = sp.csr_array(
        (count_N, other_N, np.concatenate([[0], np.cumsum(np.bincount(row_N, minlength=end - begin))])),
        (end - begin, len(total_I)),
    )
    score_N = count_N / (2 * SPAN * np.sqrt(total_I[row_N + begin] * total_I[other_N]))
    return _best_of_rows(cells, score_N, COVISITS)


def _best_of_rows(table_RI: sp.csr_array, score_N: np.ndarray, most: int) -> tuple[Jagged, np.ndarray]:
    """The `most` best cells of each row (columns ascending), best first, the lower column among equals; with their scores."""
    length_R = np.diff(table_RI.indptr)
    order_N = np.lexsort((-score_N, np.repeat(np.arange(len(length_R)), length_R)))
    kept_R = np.minimum(length_R, most)
    cell_N = order_N[ranges(table_RI.indptr[:-1].astype(np.int64), kept_R.astype(np.int64))]
    best = Jagged(table_RI.indices[cell_N].astype(np.int32), np.concatenate([[0], np.cumsum(kept_R, dtype=np.int64)]))
    return best, score_N[cell_N].astype(np.float32)
