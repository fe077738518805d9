"""How far into a session the user is. Shapes: Q = queries."""

from typing import Literal

import numpy as np

from recsys.duration import milliseconds
from recsys.features.duration import Duration
from recsys.features.tally import InSession, Recalled
from recsys.spec import Spec


class SessionPosition(Spec):
    """Events of the user's session before t: 0 for the first. A session ends when the user does nothing for `gap`."""

    kind: Literal["session_position"] = "session_position"
    gap: Duration = "30m"

    @property
    def by(self) -> tuple[str, ...]:
        return ("user",)

    @property
    def tallies(self) -> tuple[InSession]:
        return (InSession(milliseconds(self.gap)),)

    def __call__(self, position: Recalled) -> np.ndarray:
        return position.number_Q.astype(np.float32)
