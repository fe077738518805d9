"""One order of systems over several tasks or data sets, by Borda's count, which no task's scale can sway.

Colombo, Noiry, Irurozki and Clémençon 2022, "What are the best systems? New perspectives on NLP benchmarking",
https://arxiv.org/abs/2202.03799: each voter ranks the systems, the ranks are added, sigma = argsort(argsort(sum of ranks)). A
mean of metrics instead follows the task whose values lie furthest apart, and adds what has no common unit.

Differs from the paper: systems that tie share their average rank there, where argsort would part them by their place in the
table (most users have the same 0 from all systems); and points are returned beside the order, so that a tie of all voters is
seen. Scores are such that more is better: the caller turns a loss round. Shapes: T = tasks, S = systems, U = users of one task.
"""

from collections.abc import Sequence

import numpy as np


def borda(score_TS: np.ndarray) -> np.ndarray:
    """points_S: how many systems each is above, added over the tasks; one with the same score counts one half."""
    from scipy.stats import rankdata

    if not np.isfinite(score_TS).all():
        raise ValueError("every system needs a score on every task: leave out what lacks one")
    return np.asarray(rankdata(score_TS, axis=1).sum(0) - len(score_TS))


def one_level(of_task: Sequence[np.ndarray]) -> np.ndarray:
    """points_S with every user of every task as a voter; `of_task` holds score_US. A task counts by its number of users."""
    return borda(np.concatenate(of_task))


def two_level(of_task: Sequence[np.ndarray]) -> np.ndarray:
    """points_S with tasks as voters, where a task's users have voted on its ranking first; `of_task` holds score_US.

    A task counts once, whatever its users. Within it a system that is a little better for many beats one that is much better
    for few, which the mean would put first.
    """
    return borda(np.stack([borda(score_US) for score_US in of_task]))


def order(points_S: np.ndarray, mean_S: np.ndarray) -> list[int]:
    """The systems' places, most points first, those with the same points by their mean."""
    return [int(place) for place in np.lexsort((-mean_S, -points_S))]
