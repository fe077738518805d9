"""Designs of overlapping blocks: who is compared with whom. Shapes: V = candidates; K = V.

Each design takes any number of candidates: where that is not one that it was made for, blocks have empty places.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

Design = Literal["equi_replicate", "latin", "triangular"]
Blocks = list[np.ndarray]
ATTEMPTS = 20


def meetings(design: Design, count: int, *, block: int, repeats: int, seed: int) -> np.ndarray:
    """met_KK, how many blocks any two of `count` candidates share; 0 on the diagonal.

    Candidates are laid out in an order drawn by `seed`, so that no block has all the good ones. The graph of who meets whom is
    connected, since else the orders of its parts say nothing about each other: an equi-replicate layout that is not is drawn
    anew, and where luck does not help (a few candidates in blocks of two) the square stands in.
    """
    rng = np.random.default_rng((seed, count))
    if design == "equi_replicate":
        for _ in range(ATTEMPTS):
            met_KK = _met(equi_replicate(count, block, repeats, rng), count)
            if connected(met_KK):
                return met_KK
    found = triangular(count) if design == "triangular" else latin(count)
    place_V = rng.permutation(count)
    met_KK = _met([place_V[each] for each in found], count)
    assert connected(met_KK), f"{design} blocks of {count} candidates hang apart"
    return met_KK


def equi_replicate(count: int, block: int, repeats: int, rng: np.random.Generator) -> Blocks:
    """Everyone in `repeats` blocks of `block`, never twice in one; the last block may be smaller.

    Shuffled orders of all stand behind each other and are cut in blocks. Where a cut leaves the end of one order in a block
    with the beginning of the next, those that are in it already give way to the next ones of their order.
    """
    if count <= block:
        return [np.arange(count)]
    line: list[int] = []
    for _ in range(repeats):
        order, started = rng.permutation(count).tolist(), set(line[len(line) - len(line) % block :])
        first = [each for each in order if each not in started][: block - len(started)] if started else []
        taken = set(first)
        line += first + [each for each in order if each not in taken]
    return [np.array(line[begin : begin + block]) for begin in range(0, len(line), block)]


def latin(count: int) -> Blocks:
    """Rows and columns of a square: 2 s blocks of s for s^2 candidates, any two together at most once."""
    side = math.isqrt(max(count - 1, 0)) + 1
    row_V, column_V = np.divmod(np.arange(count), side)
    return _grouped([row_V, column_V], side)


def triangular(count: int) -> Blocks:
    """Candidates are pairs of s + 1 lines, and blocks the lines: s + 1 blocks of s for s (s + 1) / 2, each in two."""
    lines = 1
    while lines * (lines - 1) // 2 < count:
        lines += 1
    high_V, low_V = np.array([(high, low) for high in range(lines) for low in range(high)][:count], np.int64).reshape(-1, 2).T
    return [np.flatnonzero((high_V == line) | (low_V == line)) for line in range(lines)]


def connected(met_KK: np.ndarray) -> bool:
    """Whether a path of comparisons leads from anyone to anyone."""
    reached_K = np.zeros(len(met_KK), bool)
    reached_K[:1] = True
    while True:
        more_K = reached_K | met_KK[reached_K].any(0)
        if (more_K == reached_K).all():
            return bool(reached_K.all())
        reached_K = more_K


def _grouped(labels: Sequence[np.ndarray], size: int) -> Blocks:
    return [np.flatnonzero(label_V == each) for label_V in labels for each in range(size)]


def _met(blocks: Blocks, count: int) -> np.ndarray:
    met_KK = np.zeros((count, count), np.uint8)  # `repeats` is at most 100
    for each in blocks:
        met_KK[np.ix_(each, each)] += 1
    np.fill_diagonal(met_KK, 0)
    return met_KK
