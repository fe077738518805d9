"""How the features of items are split between two views. Shapes: F = features."""

from abc import abstractmethod
from typing import ClassVar

from torch import Generator, Tensor

from recsys.spec import Spec


class FeatureMaskSpec(Spec):
    """A subclass adds `kind` and `__call__`. Each feature is in exactly one view, and each view has at least one."""

    reads_mutual: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, mutual_FF: Tensor, generator: Generator) -> Tensor:
        """masked_F: what the first view does not hold, and the second does. `mutual_FF`: mutual information of every two
        features, zeros for a mask that does not read it. At least two features; the generator is on the CPU."""
