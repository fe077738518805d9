"""Self-normalised inverse propensity scores. Shapes: N = logged actions."""

from typing import Literal

import numpy as np

from recsys.metrics.off_policy.estimator import EstimatorSpec, Terms, total
from recsys.metrics.off_policy.logged import Logged


class SNIPS(EstimatorSpec):
    """sum(w r) / sum(w): within the range of the rewards, and unmoved by a constant added to them all.

    Swaminathan and Joachims 2015, https://papers.nips.cc/paper/5748. Its bias falls as one over the number of rows.
    """

    kind: Literal["snips"] = "snips"

    def __call__(self, log: Logged) -> Terms:
        weight_N = log.weight_N
        return Terms(np.zeros(len(weight_N)), weight_N * log.reward_N, total(weight_N))
