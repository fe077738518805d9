"""How far two columns of numbers lie apart. Shapes: N = values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """`share` of the `count` values differ by more than the tolerance; the largest and the mean absolute difference of all."""

    count: int
    share: float
    largest: float
    mean: float

    @classmethod
    def of(cls, found: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float) -> "Difference":
        """Of values joined. Two differ where they are more than `tolerance` apart, of 1 + the size of the expected one."""
        found_N, expected_N = (np.concatenate([np.empty(0), *parts]) for parts in (found, expected))
        apart_N = np.abs(found_N - expected_N)
        if not len(apart_N):
            return cls(0, 0.0, 0.0, 0.0)
        differs_N = ~(apart_N <= tolerance * (1 + np.abs(expected_N)))  # NaN differs
        return cls(len(apart_N), float(differs_N.mean()), float(apart_N.max()), float(apart_N.mean()))

    def document(self) -> dict[str, float]:
        return asdict(self)
