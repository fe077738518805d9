"""Inverse propensity scores. Shapes: X = training examples, B = examples, T = tasks."""

from typing import Literal

import numpy as np
from pydantic import Field
from torch import nn

from recsys.debias.debiaser import DebiasSpec
from recsys.debias.estimate import Estimate, Rows, clipped_share, effective_share
from recsys.debias.popularity import Popularity
from recsys.debias.propensities import Propensity


class Weighted(DebiasSpec):
    """What all that weigh rows by 1 / propensity have in common."""

    propensity: Propensity = Popularity()
    clip: float = Field(
        0.05, ge=0, le=1, description="propensities below this share of the training rows' mean are raised to it; 0: none are"
    )

    @property
    def source(self) -> Propensity:
        return self.propensity

    def floor(self, propensity_X: np.ndarray) -> float:
        return self.clip * float(propensity_X.mean())


class IPS(Weighted):
    """Weigh each row by mean propensity / propensity: unbiased where the propensities are right, however large the weights.

    Schnabel et al. 2016, https://arxiv.org/abs/1602.05352, eq. 10. Differs from the paper: the mean propensity of the training
    rows takes the place of a factor that only changes the scale of the loss, and the clip is a share of it, so that both mean
    the same whether propensities are of pairs (about 0.1) or of one item of a catalogue (about 0.0001).
    """

    kind: Literal["ips"] = "ips"

    def scale(self, propensity_X: np.ndarray) -> float:
        return float(propensity_X.mean())

    def build(self, width: int, tasks: int) -> nn.Module:
        return InverseWeights()

    @classmethod
    def neutral(cls) -> "IPS":
        return cls(propensity=Popularity(exponent=0))


class InverseWeights(nn.Module):
    """Weighs rows by scale / propensity."""

    def forward(self, rows: Rows) -> Estimate:
        weight_B = rows.inverse_B
        terms = {"effective_share": effective_share(weight_B), "clipped_share": clipped_share(rows)}
        return Estimate(rows.loss_BT, weight_B[:, None].expand_as(rows.loss_BT), terms=terms)


def of_targets(spec: DebiasSpec, count_I: np.ndarray) -> np.ndarray:
    """weight_I of every item as a target of the retriever, which is in the log `count_I` times; by popularity alone."""
    source = spec.source
    assert isinstance(source, Popularity), "the config asks for popularity"
    count_I = np.asarray(count_I)
    propensity_I = source.of_items(count_I)
    target_E = np.repeat(propensity_I, count_I)
    floor = spec.floor(target_E)
    return spec.scale(np.maximum(target_E, floor)) / np.maximum(propensity_I, floor)
