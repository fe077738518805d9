"""Whether a log says anything of a policy. Shapes: N = logged actions."""

from typing import NamedTuple

import numpy as np

from recsys.metrics.off_policy.estimator import Terms
from recsys.metrics.off_policy.intervals import normal
from recsys.metrics.off_policy.logged import Logged

LEAST_SHARE = 0.01  # of the rows, as an effective sample
SURE = 0.999  # confidence with which a mean weight is not 1


class Support(NamedTuple):
    """`ess` is the effective sample size (sum w)^2 / sum w^2; the mean weight is 1 where the logger can do all the policy does.

    `problems` are sentences; with `estimable` false no estimate is worth its digits.
    """

    rows: int
    clusters: int
    ess: float
    max_weight: float
    mean_weight: float
    estimable: bool
    problems: tuple[str, ...]


def support(log: Logged) -> Support:
    weight_N, rows = log.weight_N, len(log.weight_N)
    total, clusters = weight_N.sum(), int(log.cluster_N.max()) + 1
    ess = float(total**2 / (weight_N**2).sum()) if total else 0.0
    problems = []
    if (log.propensity_N == 1).all():
        problems.append("not estimable: every propensity is 1, so the logging policy left nothing to chance")
    if ess < LEAST_SHARE * rows:
        problems.append(
            f"not estimable: the weights are worth {ess:.0f} of {rows:,} rows, under {LEAST_SHARE:.0%}: this policy does what "
            "the log hardly ever shows"
        )
    estimable = not problems
    if clusters > 1 and total:
        mean = normal(Terms(np.zeros(rows), weight_N, np.ones(rows)), log.cluster_N, confidence=SURE)
        if not mean.low <= 1 <= mean.high:
            problems.append(
                f"the mean weight is {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}) and not 1: propensities are wrong, "
                "or the policy does what the logging policy never did"
            )
    return Support(rows, clusters, ess, float(weight_N.max()), float(weight_N.mean()), estimable, tuple(problems))
