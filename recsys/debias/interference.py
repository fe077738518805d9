"""Weights against interference in an A/B test of two recommenders that learn from one log.

Shapes: B = examples, T = tasks, V = width of a row's vectors side by side.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from recsys.debias.debiaser import DebiasSpec
from recsys.debias.estimate import Estimate, Rows, effective_share

NEAR = 1e-3  # spread of the classifier's last weights at the start, so that the weights begin near 1


class Interference(DebiasSpec):
    """Train one arm's model on both arms' rows, each weighted to be as likely as under that arm alone.

    In an A/B test both models learn from what either of them showed, so each shifts the other's training distribution and the
    test measures neither. A classifier G(x) = P(arm 1 | x) tells by how much: W = G / p for the model of arm 1 and
    (1 - G) / (1 - p) for that of arm 0, p the chance of arm 1. Rows that either arm would have shown keep a weight of about 1,
    so that less is thrown away than by training on the own arm's rows.

    Si 2023, https://arxiv.org/abs/2310.17496. Differs from the paper: G starts near p, a weight of 1 for every row, and learns
    log p(x | arm 1) / p(x | arm 0); the weights of a step come from G before its update with that step's rows, so that a row's
    own arm is first in its weight an epoch later. x must hold all in which the arms' exposure differs, and nothing of what
    came of it.
    """

    kind: Literal["interference"] = "interference"
    arm_label: str = Field(description="the label that says which arm served the row, 0 or 1; not a task of the ranker")
    train: int = Field(ge=0, le=1, description="the arm that this model serves, 0 or 1")
    share: float = Field(0.5, gt=0, lt=1, description="chance of arm 1, as the test assigns it")
    hidden: int = Field(32, ge=0, description="units of the classifier's layer; 0: a linear one")

    @property
    def arm(self) -> str:
        return self.arm_label

    def build(self, width: int, tasks: int) -> nn.Module:
        return ArmWeights(self, width)

    def __call__(self, chance_B: Tensor) -> Tensor:
        """weight_B from P(arm 1 | x)."""
        return chance_B / self.share if self.train else (1 - chance_B) / (1 - self.share)


class ArmWeights(nn.Module):
    """The classifier, which learns from its own log loss."""

    def __init__(self, spec: Interference, width: int):
        super().__init__()
        self.spec = spec
        last = nn.Linear(spec.hidden or width, 1)
        nn.init.normal_(last.weight, std=NEAR)
        nn.init.zeros_(last.bias)
        first = [nn.Linear(width, spec.hidden), nn.ReLU()] if spec.hidden else []
        self.log_ratio = nn.Sequential(*first, last)

    def forward(self, rows: Rows) -> Estimate:
        assert rows.arm_B is not None, "the rows do not say their arm"
        logit_B = self.logit(rows.vector_BV)
        weight_B = self.spec(logit_B.detach().sigmoid())
        known_B = ~torch.isnan(rows.arm_B)  # a row of no arm is weighted, but teaches nothing about the arms
        own = (binary_cross_entropy_with_logits(logit_B, rows.arm_B.nan_to_num(), reduction="none") * known_B).sum()
        own = own / known_B.sum().clamp(min=1)
        terms = {"arm_log_loss": own.detach(), "effective_share": effective_share(weight_B)}
        return Estimate(rows.loss_BT, weight_B[:, None].expand_as(rows.loss_BT), own=own, terms=terms)

    def logit(self, vector_BV: Tensor) -> Tensor:
        """logit_B of P(arm 1 | x)."""
        prior = math.log(self.spec.share / (1 - self.spec.share))
        log_ratio_B: Tensor = self.log_ratio(vector_BV.detach()).squeeze(-1).float()
        return log_ratio_B + prior
