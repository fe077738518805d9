"""How long ago something happened last. Shapes: Q = queries."""

from typing import Literal

import numpy as np

from recsys.asof import NEVER
from recsys.duration import milliseconds
from recsys.features.by import By
from recsys.features.duration import Delay, Duration
from recsys.features.tally import Latest, Recalled
from recsys.spec import Spec


class Recency(Spec):
    """log(1 + time since the last event before t - delay, in `unit`); `never` where there was none."""

    kind: Literal["recency"] = "recency"
    by: By
    event: str
    delay: Delay = "0s"
    unit: Duration = "1s"
    never: float = -1.0

    @property
    def tallies(self) -> tuple[Latest]:
        return (Latest(self.by, self.event, milliseconds(self.delay)),)

    def __call__(self, latest: Recalled) -> np.ndarray:
        known_Q = latest.last_Q != NEVER
        since_Q = latest.time_Q - np.where(known_Q, latest.last_Q, latest.time_Q)
        return np.where(known_Q, np.log1p(since_Q / milliseconds(self.unit)), self.never).astype(np.float32)
