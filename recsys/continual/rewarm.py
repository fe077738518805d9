"""The learning rates of a warm day: up again from where the decay ended, and down again."""

import math

from recsys.fit import Fit
from recsys.spec import Spec


class Rewarm(Spec):
    """Shares of the learning rates: linear from `low` to `high`, then the cosine back to `low`.

    lr(t) = low + (high - low) t / W for t < W, else low + (high - low) (1 + cos(pi (t - W) / (T - W))) / 2.
    Ibrahim et al. 2024, https://arxiv.org/abs/2403.08763. Differs from the paper: time is a share of the day's training, and
    the highest rate may be a share of the first training's. AdamW's moments begin anew, the
    tables' accumulators go on.
    """

    high: float
    low: float
    warmup: float  # W / T

    def __call__(self, done: float) -> float:
        """`done`: t / T, from 0 to 1."""
        done = min(1.0, done)
        if done < self.warmup:
            return self.low + (self.high - self.low) * done / self.warmup
        fallen = (done - self.warmup) / (1 - self.warmup)
        return self.low + (self.high - self.low) * 0.5 * (1 + math.cos(math.pi * fallen))


def warm_fit(fit: Fit, epochs: int) -> Fit:
    """The settings of a part, for a warm day. It is validated at its end alone: a rate that rises again first hurts."""
    return fit.model_copy(update={"epochs": epochs, "evaluate_every": epochs})
