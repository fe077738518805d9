"""How often something led to something else before, as clicks per impression. Shapes: Q = queries."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from recsys.features.by import By
from recsys.features.duration import Delay, Duration
from recsys.features.tally import Amount, Recalled, amount
from recsys.spec import Spec


class Rate(Spec):
    """(count of `event` + prior * strength) / (count of `of` + strength).

    The posterior mean under a Beta prior: Wang et al. 2011, Click-Through Rate Estimation for Rare Events,
    http://www.cs.cmu.edu/~xuerui/papers/ctr.pdf. Differs from the paper: prior and strength are given, not fitted.
    """

    kind: Literal["rate"] = "rate"
    by: By
    event: str
    of: str = Field("all", description="the events among which `event` is counted")
    window: Duration | None = None
    half_life: Duration | None = None
    delay: Delay = "0s"
    prior: float = Field(description="the rate where nothing has been seen", ge=0)
    strength: float = Field(description="how many events of `of` the prior is worth", gt=0)

    @model_validator(mode="after")
    def _forgets_in_one_way(self) -> "Rate":
        if self.window is not None and self.half_life is not None:
            raise ValueError("give window or half_life, not both")
        return self

    @property
    def tallies(self) -> tuple[Amount, Amount]:
        return (
            amount(self.by, self.event, self.delay, self.window, self.half_life),
            amount(self.by, self.of, self.delay, self.window, self.half_life),
        )

    def __call__(self, event: Recalled, of: Recalled) -> np.ndarray:
        event_Q, of_Q = (tally.value(seen) for tally, seen in zip(self.tallies, (event, of), strict=True))
        return ((event_Q + self.prior * self.strength) / (of_Q + self.strength)).astype(np.float32)
