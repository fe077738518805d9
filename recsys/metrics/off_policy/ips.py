"""Inverse propensity scores, also clipped. Shapes: N = logged actions."""

from typing import Literal

import numpy as np
from pydantic import Field

from recsys.metrics.off_policy.estimator import EstimatorSpec, Terms
from recsys.metrics.off_policy.logged import Logged


class IPS(EstimatorSpec):
    """mean(w r), the weight w being the policy's probability over the logger's. Clipped: w is at most `clip`.

    Horvitz and Thompson 1952, https://doi.org/10.1080/01621459.1952.10483446; clipped: Bottou et al. 2013,
    https://arxiv.org/abs/1209.2355. With rewards of at least 0 a clipped value is too low in the mean, never too high.
    """

    kind: Literal["ips"] = "ips"
    clip: float | None = Field(None, gt=0, description="largest weight; none: no limit")

    def __call__(self, log: Logged) -> Terms:
        weight_N = log.weight_N if self.clip is None else np.minimum(log.weight_N, self.clip)
        return Terms(np.zeros(len(weight_N)), weight_N * log.reward_N, np.ones(len(weight_N)))

    @property
    def bias(self) -> str:
        return "" if self.clip is None else "weights above the limit are cut: too low where rewards are at least 0"
