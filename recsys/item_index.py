"""The best items for a vector without scoring all of them: a faiss index, and exact scores of what it finds.

Shapes: B = requests, E = excluded items, X = 1 for all requests alike or B, I = rows of the item table, D = width, K = items
wanted, N = items found, S = items of the sample that the clusters are learned from.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from recsys.columns import FIRST_ID, PADDING_ID

POINTS_OF_A_CLUSTER = 64  # that k-means learns from; faiss warns below 39
LONGER = 1.25  # times the items wanted: how many are scored exactly, since the index holds a byte a number
EXACT_BELOW = 20_000  # items that a filter leaves: scored one and all
BLOCK = 65_536  # items scored at a time


def build(vector_ID: np.ndarray, path: Path, *, seed: int) -> int:
    """Write an index of the rows from FIRST_ID on, and return its number of clusters: 4 sqrt(items).

    An inverted file over k-means clusters, the vectors in 8 bits a number (Sivic and Zisserman 2003,
    https://doi.org/10.1109/ICCV.2003.1238663; faiss, Douze et al. 2024, https://arxiv.org/abs/2401.08281), by inner product.
    Differs from the papers: what is found is scored again by the vectors themselves, see `ItemIndex`.
    """
    import faiss

    items, dim = len(vector_ID) - FIRST_ID, vector_ID.shape[1]
    clusters = max(1, min(4 * math.isqrt(items), items // POINTS_OF_A_CLUSTER))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, clusters, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.seed, index.cp.max_points_per_centroid = seed, POINTS_OF_A_CLUSTER
    sample_S = np.random.default_rng(seed).permutation(items)[: clusters * POINTS_OF_A_CLUSTER] + FIRST_ID
    index.train(np.ascontiguousarray(vector_ID[np.sort(sample_S)], np.float32))
    for begin in range(FIRST_ID, len(vector_ID), BLOCK):
        block = np.ascontiguousarray(vector_ID[begin : begin + BLOCK], np.float32)
        index.add_with_ids(block, np.arange(begin, begin + len(block)))
    faiss.write_index(index, str(path))
    return clusters


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """`nprobe`: clusters looked through for a request; all of them are exact up to the 8 bits. `vector_ID`: what scores."""

    index: Any
    vector_ID: np.ndarray
    nprobe: int
    threads: int = 1

    @classmethod
    def open(cls, path: Path, vector_ID: np.ndarray, *, nprobe: int, threads: int = 1) -> Self:
        """The file is mapped, so that processes share it."""
        import faiss

        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0  # it would start threads in every search
        return cls(index, vector_ID, nprobe, threads)

    def search(
        self, user_BD: np.ndarray, exclude_BE: np.ndarray, bias_XI: np.ndarray | None, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """item_BK and score_BK as the exact graph gives them: best first, the lower id among equals, PADDING_ID and -inf in
        empty places. Where a filter leaves few items, or the index finds less than `count`, all that are allowed are scored.
        `bias_XI` is added to scores, -inf leaves out; None: 0."""
        import faiss

        faiss.omp_set_num_threads(self.threads)  # holds for the calling thread alone
        item_BK = np.full((len(user_BD), count), PADDING_ID, np.int64)
        score_BK = np.full((len(user_BD), count), -np.inf, np.float32)
        filters = [None] if bias_XI is None else [_Filter.of(bias_I) for bias_I in bias_XI]
        for b, (user_D, exclude_E) in enumerate(zip(user_BD, exclude_BE, strict=True)):
            item_N, score_N = self._of_one(
                user_D, np.unique(exclude_E[exclude_E >= FIRST_ID]), filters[b % len(filters)], count
            )
            best_N = np.lexsort((item_N, -score_N))[:count]
            item_BK[b, : len(best_N)], score_BK[b, : len(best_N)] = item_N[best_N], score_N[best_N]
        return item_BK, score_BK

    def _of_one(
        self, user_D: np.ndarray, exclude_E: np.ndarray, only: "_Filter | None", count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """At least `count` items with their scores, in any order, where as many are allowed."""
        allowed = len(self.vector_ID) - FIRST_ID if only is None else only.allowed
        if allowed > EXACT_BELOW:
            item_N = self._near(user_D, exclude_E, only, math.ceil(LONGER * count))
            if len(item_N) >= count:
                return item_N, self._scores(user_D, item_N, only)
        item_N = np.arange(FIRST_ID, len(self.vector_ID)) if only is None else only.items
        item_N = item_N[~np.isin(item_N, exclude_E, assume_unique=True)]
        return item_N, self._scores(user_D, item_N, only)

    def _near(self, user_D: np.ndarray, exclude_E: np.ndarray, only: "_Filter | None", count: int) -> np.ndarray:
        import faiss

        parameters = {"nprobe": self.nprobe}
        if only is not None or len(exclude_E):
            bits = np.full(len(self.vector_ID) // 8 + 1, 255, np.uint8) if only is None else only.bits.copy()
            np.bitwise_and.at(bits, exclude_E >> 3, ~(np.uint8(1) << (exclude_E & 7).astype(np.uint8)))
            parameters["sel"] = faiss.IDSelectorBitmap(bits)
        _, item_1N = self.index.search(user_D[None].astype(np.float32), count, params=faiss.SearchParametersIVF(**parameters))
        return item_1N[0][item_1N[0] >= 0]

    def _scores(self, user_D: np.ndarray, item_N: np.ndarray, only: "_Filter | None") -> np.ndarray:
        blocks = range(0, len(item_N), BLOCK)
        parts = [self.vector_ID[item_N[at : at + BLOCK]].astype(np.float32, copy=False) @ user_D for at in blocks]
        score_N = np.concatenate(parts) if parts else np.empty(0, np.float32)
        return score_N if only is None else score_N + only.bias_I[item_N]


@dataclass(frozen=True, eq=False)
class _Filter:
    """Which items may be found, as the index reads it: bit i % 8 of byte i // 8."""

    bias_I: np.ndarray
    bits: np.ndarray
    allowed: int

    @classmethod
    def of(cls, bias_I: np.ndarray) -> "_Filter | None":
        """None where the bias changes nothing."""
        if not bias_I.any():
            return None
        allowed_I = bias_I > -np.inf
        allowed_I[:FIRST_ID] = False
        bits = np.append(np.packbits(allowed_I, bitorder="little"), np.uint8(0))  # ids end in the last byte at the latest
        return cls(bias_I, bits, int(np.count_nonzero(allowed_I)))

    @property
    def items(self) -> np.ndarray:
        return np.flatnonzero(np.unpackbits(self.bits, count=len(self.bias_I), bitorder="little"))
