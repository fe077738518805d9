"""Per-user values of systems whose true quality is known, and how often tests are wrong about them.

Shapes: U = users, S = systems of one comparison, M = comparisons with draws of their own, R = bootstrap replicates.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtr
from scipy.stats import binom

from recsys.metrics.resample import draw_users
from recsys.metrics.significance import REPLICATES, bootstrap_tests, holm, wilcoxon

AT_ONCE = 50  # comparisons that share their draws
LEVEL = 0.05
USERS = (100, 1000, 6040)
TESTS = ("bootstrap", "percentile", "studentised", "t", "wilcoxon")

World = Callable[[int, int, int, np.random.Generator], np.ndarray]  # users, systems, comparisons -> value_USM


def ndcg(
    users: int, systems: int, comparisons: int, rng: np.random.Generator, *, hit: float = 0.1, shared: float = 0.7
) -> np.ndarray:
    """NDCG@10 with one item left out, found among the first ten for a share `hit` of users, at any of the ten places alike.

    What makes a user hard is mostly `shared` by the systems.
    """
    hard = rng.normal(size=(users, 1, comparisons))
    own = rng.normal(size=(users, systems, comparisons))
    place = np.floor(ndtr(shared**0.5 * hard + (1 - shared) ** 0.5 * own) / hit * 10) + 1
    return np.where(place <= 10, 1 / np.log2(place + 1), 0.0)


def hits(users: int, systems: int, comparisons: int, rng: np.random.Generator) -> np.ndarray:
    """HR@10: the same lists, 0 or 1."""
    return (ndcg(users, systems, comparisons, rng) > 0).astype(np.float64)


def heavy(users: int, systems: int, comparisons: int, rng: np.random.Generator) -> np.ndarray:
    """What users spend: log-normal with a standard deviation of 1.5 in the logarithm."""
    return np.exp(1.5 * rng.normal(size=(users, systems, comparisons)))


def lopsided(users: int, systems: int, comparisons: int, rng: np.random.Generator) -> np.ndarray:
    """The same mean, another shape: against the first the others gain much for one user in ten and lose little for the rest."""
    value_USM = rng.exponential(1.0, (users, systems, comparisons))
    gains = rng.random(value_USM.shape) < 0.1
    value_USM = np.where(gains, value_USM, -value_USM / 9)
    value_USM[:, 0] = 0
    return value_USM


NULLS: dict[str, World] = {"NDCG@10": ndcg, "HR@10": hits, "log-normal": heavy, "lopsided": lopsided}


def nominal(tries: int) -> tuple[int, int]:
    """Where the number of false positives lies, with chance .95, if each comes with chance .05."""
    low, high = binom.interval(0.95, tries, LEVEL)
    return int(low), int(high)


def false_positives(world: World, users: int, comparisons: int, *, truth: float = 0.0, seed: int = 0) -> dict[str, int]:
    """Of so many comparisons of two systems, by each test: how often it says that the mean difference is not `truth`."""
    rng, found = np.random.default_rng(seed), dict.fromkeys(TESTS, 0)
    for start in range(0, comparisons, AT_ONCE):
        value_USM = world(users, 2, min(AT_ONCE, comparisons - start), rng)
        for name, wrong_M in _verdicts(value_USM[:, 1] - value_USM[:, 0] - truth, rng).items():
            found[name] += int(wrong_M.sum())
    return found


def _verdicts(gap_UM: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Whether each test says that a column's mean is not 0."""
    users, mean_M = len(gap_UM), gap_UM.mean(0)
    times_RU = draw_users(users, REPLICATES, rng).astype(np.float32)
    apart_UM = gap_UM - mean_M
    moved_RM = times_RU @ apart_UM.astype(np.float32) / users
    square_RM = times_RU @ (apart_UM**2).astype(np.float32) / users
    changed_M = np.count_nonzero(gap_UM, axis=0)
    low_M, high_M = np.quantile(mean_M + moved_RM, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    error_M = gap_UM.std(0, ddof=1) / np.sqrt(users)
    error_RM = np.sqrt(np.maximum(square_RM - moved_RM**2, 0) / (users - 1))
    flat_RM = error_RM <= 1e-6 * error_M  # a draw without spread is as far away as can be
    distance_RM = np.divide(np.abs(moved_RM), error_RM, out=np.full(moved_RM.shape, np.inf), where=~flat_RM)
    student_M = np.divide(np.abs(mean_M), error_M, out=np.zeros(len(mean_M)), where=error_M > 0)
    return {
        "bootstrap": bootstrap_tests(mean_M, mean_M + moved_RM, changed_M=changed_M).p_M < LEVEL,
        "percentile": (low_M > 0) | (high_M < 0),
        "studentised": (1 + (distance_RM >= student_M).sum(0)) / (1 + REPLICATES) < LEVEL,
        "t": 2 * stdtr(users - 1, -student_M) < LEVEL,
        "wilcoxon": np.array([wilcoxon(gap_U) < LEVEL for gap_U in gap_UM.T]),
    }  # fmt: skip


def families(world: World, users: int, systems: int, tries: int, *, seed: int = 0) -> dict[str, int]:
    """Of so many comparisons of equal systems, how often at least one is said to differ from the reference.

    `given`: the reference was named beforehand. `the best`: it is the one that happens to be the best, corrected for the others
    as if it had been named, and for all pairs.
    """
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(
        ("given, uncorrected", "given, Holm", "the best, Holm over the others", "the best, Holm over all pairs"), 0
    )
    for _ in range(tries):
        value_US = world(users, systems, 1, rng)[:, :, 0]
        moved_RS = (
            draw_users(users, REPLICATES, rng).astype(np.float32) @ (value_US - value_US.mean(0)).astype(np.float32) / users
        )
        given_H = _against(value_US, moved_RS, 0)
        best_H = _against(value_US, moved_RS, int(value_US.mean(0).argmax()))
        pairs = systems * (systems - 1) // 2
        smallest = (given_H.min(), holm(given_H).min(), holm(best_H).min(), holm(best_H, pairs).min())
        for name, p in zip(found, smallest, strict=True):
            found[name] += int(p < LEVEL)
    return found


def _against(value_US: np.ndarray, moved_RS: np.ndarray, reference: int) -> np.ndarray:
    """p of each other system against the reference."""
    gap_US = np.delete(value_US - value_US[:, [reference]], reference, axis=1)
    moved_RH = np.delete(moved_RS - moved_RS[:, [reference]], reference, axis=1)
    mean_H = gap_US.mean(0)
    return bootstrap_tests(mean_H, mean_H + moved_RH, changed_M=np.count_nonzero(gap_US, axis=0)).p_M


def better(users: int, systems: int, comparisons: int, rng: np.random.Generator) -> np.ndarray:
    """NDCG@10 as above, where the second system finds the item for 13 % of users and the first for 10 %: `BETTER`."""
    seed = int(rng.integers(1 << 32))
    first, second = (ndcg(users, systems, comparisons, np.random.default_rng(seed), hit=hit) for hit in HITS)
    return np.stack([first[:, 0], second[:, 1]], axis=1)


HITS = (0.10, 0.13)
BETTER = float((HITS[1] - HITS[0]) / 10 * (1 / np.log2(np.arange(1, 11) + 1)).sum())


def facts(comparisons: int, tries: int) -> dict[str, Any]:
    """All that the benchmark reports."""
    return {
        "nominal": nominal(comparisons),
        "nulls": {
            name: {users: false_positives(world, users, comparisons) for users in (100, 1000, 6040)}
            for name, world in NULLS.items()
        },
        "missed": {users: false_positives(better, users, comparisons, truth=BETTER) for users in (100, 1000, 6040)},
        "families": {systems: families(ndcg, 6040, systems, n) for systems, n in ((5, tries), (200, max(1, tries // 4)))},
    }
