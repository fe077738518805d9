"""Weights learned from how noisy each task is. Shapes: T = tasks."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from recsys.balance.gradients import Losses, backward, loss_terms, per_task, weigh
from recsys.spec import Spec


class Uncertainty(Spec):
    """Minimise sum_t L_t / (2 exp v_t) + v_t / 2 with a learned v_t = log sigma_t^2; at the optimum exp v_t = L_t.

    Kendall, Gal and Cipolla 2018, https://arxiv.org/abs/1705.07115. A task's loss is thus divided by about its own size. The
    paper's form for classification, L / exp v + v / 2, is this one with v shifted by log 2, so one form serves every kind of
    task. A weight of the task multiplies L_t, and the optimum cancels it: it only says where training starts.
    Differs from the paper: a loss of exactly 0 (no example of the batch has the task's label) leaves v_t as it is; otherwise
    every batch without a rare label would raise its weight. v needs an optimiser without weight decay.
    """

    kind: Literal["uncertainty"] = "uncertainty"
    initial: float = Field(
        -0.5, ge=-10, le=10, description="v of every task at the start; its loss is multiplied by 1 / (2 exp v)"
    )

    def build(self, weights: Mapping[str, float]) -> nn.Module:
        return _Uncertainty(self, weights)


class _Uncertainty(nn.Module):
    def __init__(self, spec: Uncertainty, weights: Mapping[str, float]):
        super().__init__()
        self.weights = dict(weights)
        self.log_variance_T = nn.Parameter(torch.full((len(weights),), spec.initial))

    def forward(
        self, losses: Losses, shared: Sequence[Tensor], own: Sequence[Tensor], generator: Generator
    ) -> dict[str, Tensor]:
        loss_T = losses()
        weighed_T, v_T = weigh(loss_T, self.weights), self.log_variance_T
        seen_T = loss_T.detach() != 0
        total = torch.where(seen_T, (weighed_T * (-v_T).exp() + v_T) / 2, 0).sum()
        backward(total, [*shared, *own, v_T])
        factor_T = (-v_T.detach()).exp() / 2
        tasks = list(self.weights)
        return {**loss_terms(total, loss_T, tasks), **per_task("weight", weigh(factor_T, self.weights), tasks)}
