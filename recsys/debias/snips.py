"""Self-normalised inverse propensity scores. Shapes: X = training examples."""

from typing import Literal

import numpy as np
from torch import nn

from recsys.debias.ips import InverseWeights, Weighted
from recsys.debias.popularity import Popularity


class SNIPS(Weighted):
    """Weigh each row by (1 / propensity) / (its mean over the training rows): a little bias for much less variance than IPS.

    Swaminathan and Joachims 2015, https://papers.nips.cc/paper/5748. Differs from the paper: the sum of 1 / propensity is that
    of all training rows, not of the batch, whose ratio of sums would be biased.
    """

    kind: Literal["snips"] = "snips"

    def scale(self, propensity_X: np.ndarray) -> float:
        return 1 / float((1 / propensity_X).mean())

    def build(self, width: int, tasks: int) -> nn.Module:
        return InverseWeights()

    @classmethod
    def neutral(cls) -> "SNIPS":
        return cls(propensity=Popularity(exponent=0))
