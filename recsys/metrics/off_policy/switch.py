"""Doubly robust where the weights are small, the outcome model where they are not. Shapes: N = logged actions."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from recsys.metrics.off_policy.estimator import EstimatorSpec, Terms
from recsys.metrics.off_policy.logged import Logged


class Switch(EstimatorSpec):
    """mean(direct + w (r - predicted)), the second term only where w is at most `above`.

    Switch-DR, Wang, Agarwal and Dudik 2017, https://arxiv.org/abs/1612.01205. Differs from the paper: `above` is given, not
    chosen from the data.
    """

    kind: Literal["switch"] = "switch"
    needs_model: ClassVar[bool] = True
    above: float = Field(10.0, gt=0, description="weight from which on the outcome model is taken at its word")

    def __call__(self, log: Logged) -> Terms:
        predicted_N, direct_N = log.modelled
        weight_N = np.where(log.weight_N <= self.above, log.weight_N, 0.0)
        return Terms(direct_N, weight_N * (log.reward_N - predicted_N), np.ones(len(weight_N)))

    @property
    def bias(self) -> str:
        return "that of the outcome model where weights are large"
