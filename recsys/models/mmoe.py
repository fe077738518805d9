"""Multi-gate mixture of experts. Shapes: B = examples or requests, C = candidates, W = width of all fields, H = hidden,
X = experts, T = tasks.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.mixture import Experts, Gate, Towers
from recsys.models.ranker_inputs import RankerInputs, SharingSpec


class MMoE(SharingSpec):
    """Tasks share experts and weigh them by their own softmax gate. Ma et al. 2018, https://doi.org/10.1145/3219819.3220007.

    Differs from the paper: a tower is linear.
    """

    kind: Literal["mmoe"] = "mmoe"
    experts: int = Field(4, ge=1)
    hidden: int = Field(64, ge=1, description="width of an expert's output")

    def build(self, fields: int, dim: int, tasks: Sequence[str]) -> nn.Module:
        return _MMoE(self, fields * dim, tasks)


class _MMoE(nn.Module):
    def __init__(self, spec: MMoE, width: int, tasks: Sequence[str]):
        super().__init__()
        self.experts = Experts(width, spec.experts, spec.hidden)
        self.gate = Gate(width, spec.experts, tasks)
        self.towers = Towers(len(tasks), spec.hidden)

    def task_parameters(self) -> list[nn.Parameter]:
        return [*self.gate.parameters(), *self.towers.parameters()]

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Return logit_BCT."""
        x_BCW = inputs.field_BCFD.flatten(-2)
        expert_BCXH, gate_BCTX = self.experts(x_BCW), self.gate(x_BCW)
        return self.towers(torch.matmul(gate_BCTX, expert_BCXH))
