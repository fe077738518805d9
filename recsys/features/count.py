"""How often something happened before. Shapes: Q = queries."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from recsys.features.by import By
from recsys.features.duration import Delay, Duration
from recsys.features.tally import Amount, Recalled, amount
from recsys.spec import Spec


class Count(Spec):
    """Events in [t - delay - window, t - delay), or since ever, or all of them with a weight that halves every `half_life`."""

    kind: Literal["count"] = "count"
    by: By
    event: str = Field(description="`all`, `history`, or a task: rows whose label is above 0")
    window: Duration | None = None
    half_life: Duration | None = None
    delay: Delay = "0s"
    log1p: bool = Field(True, description="log(1 + count), which a model takes in more easily than counts of any size")

    @model_validator(mode="after")
    def _forgets_in_one_way(self) -> "Count":
        if self.window is not None and self.half_life is not None:
            raise ValueError("give window or half_life, not both")
        return self

    @property
    def tallies(self) -> tuple[Amount]:
        return (amount(self.by, self.event, self.delay, self.window, self.half_life),)

    def __call__(self, counted: Recalled) -> np.ndarray:
        count_Q = self.tallies[0].value(counted)
        return (np.log1p(count_Q) if self.log1p else count_Q).astype(np.float32)
