"""The outcome model, its errors weighed back in. Shapes: N = logged actions."""

from typing import ClassVar, Literal

import numpy as np

from recsys.metrics.off_policy.estimator import EstimatorSpec, Terms, total
from recsys.metrics.off_policy.logged import Logged


class DoublyRobust(EstimatorSpec):
    """mean(direct + w (r - predicted)); self-normalised: the second term is divided by mean(w).

    Dudik, Langford and Li 2011, https://arxiv.org/abs/1103.4601. Right in the mean with right propensities, whatever the model;
    a good one makes the interval narrow. Self-normalised: see Thomas and Brunskill 2016, https://arxiv.org/abs/1604.00923.
    """

    kind: Literal["doubly_robust"] = "doubly_robust"
    needs_model: ClassVar[bool] = True
    self_normalised: bool = False

    def __call__(self, log: Logged) -> Terms:
        predicted_N, direct_N = log.modelled
        weight_N = log.weight_N
        mass_N = total(weight_N) if self.self_normalised else np.ones(len(weight_N))
        return Terms(direct_N, weight_N * (log.reward_N - predicted_N), mass_N)
