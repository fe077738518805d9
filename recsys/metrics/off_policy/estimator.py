"""What every estimator of a policy's value gives: a mean, and a ratio of two sums. Shapes: N = logged actions."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from recsys.metrics.off_policy.logged import Logged
from recsys.spec import Spec


class Terms(NamedTuple):
    """The value is mean(direct_N) + sum(gain_N) / sum(mass_N). Its parts stay apart so that a resample forms the ratio anew."""

    direct_N: np.ndarray
    gain_N: np.ndarray
    mass_N: np.ndarray

    @property
    def value(self) -> float:
        return float(self.direct_N.mean() + self.gain_N.sum() / self.mass_N.sum())


class EstimatorSpec(Spec, ABC):
    """A subclass adds `kind` and `__call__`."""

    needs_model: ClassVar[bool] = False  # whether it reads an outcome model

    @abstractmethod
    def __call__(self, log: Logged) -> Terms: ...

    @property
    def bias(self) -> str:
        """Why its interval need not hold the value however many rows there are; "": it does."""
        return ""


def total(mass_N: np.ndarray) -> np.ndarray:
    """Weights to divide by. Where all are 0 the policy takes none of the logged actions, and there is nothing to say of it."""
    if not mass_N.sum() > 0:
        raise ValueError("the policy gives probability 0 to every logged action: no log of this kind says what it is worth")
    return mass_N
