"""The outcome model alone. Shapes: N = logged actions."""

from typing import ClassVar, Literal

import numpy as np

from recsys.metrics.off_policy.estimator import EstimatorSpec, Terms
from recsys.metrics.off_policy.logged import Logged


class Direct(EstimatorSpec):
    """mean(direct): what the outcome model expects of the policy. Uses no propensity, and is as wrong as the model is.

    The direct method of Dudik, Langford and Li 2011, https://arxiv.org/abs/1103.4601.
    """

    kind: Literal["direct"] = "direct"
    needs_model: ClassVar[bool] = True

    def __call__(self, log: Logged) -> Terms:
        _, direct_N = log.modelled
        return Terms(direct_N, np.zeros(len(direct_N)), np.ones(len(direct_N)))

    @property
    def bias(self) -> str:
        return "that of the outcome model, whose own uncertainty is not in the interval either"
