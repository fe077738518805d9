"""Codes level after level, each of what the levels before left over. Shapes: N = vectors, D = width, T = levels, K = codes."""

from collections.abc import Iterator, Sequence

import numpy as np

ROWS = 65_536  # vectors at a time


def distances(vector_ND: np.ndarray, centroid_KD: np.ndarray) -> np.ndarray:
    """Squared distances, as distance_NK."""
    square_N, square_K = (vector_ND**2).sum(1), (centroid_KD**2).sum(1)
    return np.maximum(square_N[:, None] + square_K - 2 * vector_ND @ centroid_KD.T, 0)


def nearest(vector_ND: np.ndarray, centroid_KD: np.ndarray) -> np.ndarray:
    """The nearest centroid of every vector; of equally near ones the first."""
    parts = [distances(vector_ND[row : row + ROWS], centroid_KD).argmin(1) for row in range(0, len(vector_ND), ROWS)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def encode(vector_ND: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """code_NT: the nearest centroid of the residual at each level."""
    code_NT, left_ND = np.empty((len(vector_ND), len(codebooks)), np.int32), vector_ND
    for level, centroid_KD in enumerate(codebooks):
        code_NT[:, level] = nearest(left_ND, centroid_KD)
        left_ND = left_ND - centroid_KD[code_NT[:, level]]
    return code_NT


def partial_sums(code_NT: np.ndarray, codebooks: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The sum of the first centroids of every row of codes, after each level."""
    sum_ND = np.zeros((len(code_NT), codebooks[0].shape[1]), np.float32)
    for level, centroid_KD in enumerate(codebooks):
        sum_ND = sum_ND + centroid_KD[code_NT[:, level]]
        yield sum_ND
