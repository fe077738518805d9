"""Residual k-means with clusters of nearly equal sizes. Shapes: N = items, D = width, T = levels, K = codes."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys.generate import residual
from recsys.generate.balance import balanced
from recsys.generate.items import Items, State
from recsys.spec import Spec


class BalancedKMeans(Spec):
    """Cluster the vectors, then what is left of each beside its centroid, and so on; no cluster is large and none is empty.

    R_1 = X; (c_t, C_t) = clusters of R_t; R_(t+1) = R_t - C_t[c_t]. Cluster sizes lie within one of floor(n / K), as in
    MiniOneRec, 2025, https://arxiv.org/abs/2510.24431. Differs from the paper: faiss clusters freely first, then vectors are
    shared out by deferred acceptance in place of a minimum-cost flow, and means and shares alternate `rounds` times. An item
    that comes later has the nearest centroids, wherever they are.
    """

    kind: Literal["balanced_kmeans"] = "balanced_kmeans"
    reads_vectors: ClassVar[bool] = True
    levels: int = Field(3, ge=1, le=8, description="codes of an item, the last one against collisions not counted")
    codes: int = Field(256, ge=2, le=65536, description="of each level; never more than there are items")
    balance: bool = Field(True, description="hold clusters to nearly equal sizes; false: k-means as it is")
    iterations: int = Field(25, ge=1, description="of k-means at each level")
    restarts: int = Field(3, ge=1, description="k-means begins from other points this often, and the best counts")
    rounds: int = Field(10, ge=1, description="at most, of sharing out and taking means")

    def fit(self, items: Items, row_N: np.ndarray, vector_ND: np.ndarray, seed: int) -> tuple[np.ndarray, State]:
        """code_NT of these items, and the codebooks."""
        codes, state, left_ND = [], {}, np.ascontiguousarray(vector_ND, np.float32)
        for level in range(self.levels):
            code_N, centroid_KD = self._cluster(left_ND, seed + level)
            left_ND = left_ND - centroid_KD[code_N]
            codes.append(code_N)
            state[f"codebook_{level}"] = centroid_KD
        return np.stack(codes, axis=1).astype(np.int32), state

    def encode(self, items: Items, row_N: np.ndarray, vector_ND: np.ndarray, state: State) -> np.ndarray:
        """code_NT of items that no fit has seen."""
        return residual.encode(vector_ND, self._codebooks(state))

    def reconstruct(self, code_NT: np.ndarray, state: State) -> Iterator[np.ndarray]:
        """What the first codes say of every vector, after each level."""
        return residual.partial_sums(code_NT, self._codebooks(state))

    def sizes(self, state: State) -> tuple[int, ...]:
        return tuple(len(centroid_KD) for centroid_KD in self._codebooks(state))

    def _codebooks(self, state: State) -> list[np.ndarray]:
        return [state[f"codebook_{level}"] for level in range(self.levels)]

    def _cluster(self, vector_ND: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        centroid_KD = kmeans(vector_ND, min(self.codes, len(vector_ND)), self.iterations, self.restarts, seed)
        if not self.balance:
            return residual.nearest(vector_ND, centroid_KD), centroid_KD
        code_N = balanced(residual.distances(vector_ND, centroid_KD))
        for _ in range(self.rounds):
            centroid_KD = means(vector_ND, code_N, len(centroid_KD))
            again_N = balanced(residual.distances(vector_ND, centroid_KD))
            if (again_N == code_N).all():
                break
            code_N = again_N
        return code_N, means(vector_ND, code_N, len(centroid_KD))


def kmeans(vector_ND: np.ndarray, centroids: int, iterations: int, restarts: int, seed: int) -> np.ndarray:
    """centroid_KD, by faiss."""
    import faiss

    found = faiss.Kmeans(
        vector_ND.shape[1], centroids, niter=iterations, nredo=restarts, seed=seed, verbose=False,
        min_points_per_centroid=1, max_points_per_centroid=len(vector_ND),
    )  # fmt: skip
    found.train(vector_ND)
    return np.array(found.centroids, np.float32)


def means(vector_ND: np.ndarray, code_N: np.ndarray, centroids: int) -> np.ndarray:
    """centroid_KD: the mean of every cluster, none of them empty."""
    sum_KD = np.zeros((centroids, vector_ND.shape[1]))
    np.add.at(sum_KD, code_N, vector_ND)
    return (sum_KD / np.bincount(code_N, minlength=centroids)[:, None]).astype(np.float32)
