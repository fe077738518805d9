"""A simple outcome model, fitted on other clusters than those it speaks of.

Shapes: N = logged actions, R = requests, F = folds, S = contexts (places on the page), I = items, C = clusters.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rates:
    """The mean reward of an item in a context is `rate_FS[context] * lift_FI[item]`, as the other folds' rows have it."""

    fold_N: np.ndarray
    rate_FS: np.ndarray
    lift_FI: np.ndarray

    def predicted(self, context_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
        """predicted_N of the logged actions."""
        return self.rate_FS[self.fold_N, context_N] * self.lift_FI[self.fold_N, item_N]

    def lifts(self, prob_RI: np.ndarray) -> np.ndarray:
        """lift_RF, what each fold's rows say of the items that a policy would show at these requests."""
        return np.asarray(prob_RI @ self.lift_FI.T)

    def direct(self, context_N: np.ndarray, lift_RF: np.ndarray, request_N: np.ndarray) -> np.ndarray:
        """direct_N, the mean reward of a policy at each row's request, given its `lifts`."""
        return self.rate_FS[self.fold_N, context_N] * lift_RF[request_N, self.fold_N]


def cross_fitted(
    reward_N: np.ndarray, context_N: np.ndarray, item_N: np.ndarray, cluster_N: np.ndarray, *, num_items: int,
    rng: np.random.Generator, folds: int = 5, prior: float = 5.0,
) -> Rates:  # fmt: skip
    """Rates of every context, and of items against them, shrunk as by `prior` rewards at the context's own rate.

    A fold has whole clusters, so that no row is predicted from one that depends on it. `cluster_N` is numbered from 0.
    """
    clusters = int(cluster_N.max()) + 1
    folds = max(2, min(folds, clusters))
    fold_N = (rng.permutation(clusters) % folds)[cluster_N]
    rate_FS, lift_FI = [], []
    for fold in range(folds):
        fit = np.flatnonzero(fold_N != fold)
        rate_S = _shrunk(reward_N[fit], context_N[fit], int(context_N.max()) + 1, prior)
        expected_N = rate_S[context_N[fit]]
        seen_I, expected_I = (np.bincount(item_N[fit], value_N, num_items) for value_N in (reward_N[fit], expected_N))
        rate_FS.append(rate_S)
        lift_FI.append((seen_I + prior) / (expected_I + prior))
    return Rates(fold_N, np.stack(rate_FS), np.stack(lift_FI))


def _shrunk(reward_N: np.ndarray, context_N: np.ndarray, contexts: int, prior: float) -> np.ndarray:
    """Mean reward of each context, with `prior` more rows of the mean of all."""
    rows_S, sum_S = np.bincount(context_N, minlength=contexts), np.bincount(context_N, reward_N, contexts)
    overall = reward_N.mean() if len(reward_N) else 0.0
    return (sum_S + prior * overall) / (rows_S + prior)
