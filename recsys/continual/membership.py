"""Membership inference: can somebody who asks the model tell whose data it was trained on?

Shapes: M = users said to be in the training data (or forgotten), O = users who never were.
"""

from typing import NamedTuple

import numpy as np

Z_95 = 1.959964


class Attack(NamedTuple):
    """The area under the attacker's ROC curve: .5 is a guess, 1 tells all members. `low` and `high`: interval of 95 %."""

    auc: float
    low: float
    high: float
    members: int
    others: int


def attack(score_M: np.ndarray, score_O: np.ndarray) -> Attack:
    """How well a score tells the two groups apart: the chance that a member's is higher than another's, ties counting half.

    The score is how much better than a guess the model predicts the user's own events, see `gain`. Loss threshold attack,
    Yeom et al. 2018, https://arxiv.org/abs/1709.01604; the interval is DeLong's (1988), and all of 0 to 1 for a group
    of one. Raises ValueError for an empty group.
    """
    if not (len(score_M) and len(score_O)):
        raise ValueError(f"an attack needs users in each group, not {len(score_M)} and {len(score_O)}")
    over_M, over_O = _share_below(score_M, score_O), 1 - _share_below(score_O, score_M)
    auc = float(over_M.mean())
    if min(len(score_M), len(score_O)) == 1:
        return Attack(auc, 0.0, 1.0, len(score_M), len(score_O))
    error = float(np.sqrt(over_M.var(ddof=1) / len(over_M) + over_O.var(ddof=1) / len(over_O)))
    return Attack(auc, max(0.0, auc - Z_95 * error), min(1.0, auc + Z_95 * error), len(score_M), len(score_O))


def gain(loss: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """How much better than a model of nobody (popularity, base rates) the model predicts a user's events, in nats.

    Takes out that some users are easy for every model: difficulty calibration, Watson et al. 2022,
    https://arxiv.org/abs/2111.08440. Differs from the paper: the reference is no trained model.
    """
    return np.asarray(baseline - loss)


def matched(count_M: np.ndarray, count_O: np.ndarray, *, each: int, rng: np.random.Generator) -> np.ndarray:
    """Places among the others that were as active as the members: at most `each` for every member, nobody twice.

    Closest is by ratio of the numbers of events; the members choose in random order, one each in turn.
    """
    left = list(np.argsort(count_O, kind="stable"))
    size = [float(np.log1p(count_O[place])) for place in left]
    chosen: list[int] = []
    for _ in range(each):
        for wanted in np.log1p(count_M[rng.permutation(len(count_M))]):
            if not left:
                return np.sort(np.asarray(chosen, np.int64))
            place = int(np.searchsorted(size, wanted))
            near = [at for at in (place - 1, place) if 0 <= at < len(left)]
            best = min(near, key=lambda at: abs(size[at] - wanted))
            chosen.append(int(left.pop(best)))
            size.pop(best)
    return np.sort(np.asarray(chosen, np.int64))


def _share_below(score_A: np.ndarray, score_B: np.ndarray) -> np.ndarray:
    """For each of A the share of B below it, ties counting half."""
    sorted_B = np.sort(score_B)
    return (np.searchsorted(sorted_B, score_A, "left") + np.searchsorted(sorted_B, score_A, "right")) / (2 * len(sorted_B))
