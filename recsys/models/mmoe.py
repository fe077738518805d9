"""Multi-gate mixture of experts. Shapes: leading dimensions are free; F = input width, H = hidden, X = experts, T = tasks."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.spec import Spec


class MMoE(Spec):
    """Tasks share experts and weigh them by their own softmax gate. Ma et al. 2018, https://doi.org/10.1145/3219819.3220007."""

    kind: Literal["mmoe"] = "mmoe"
    experts: int = Field(4, ge=1)
    hidden: int = Field(64, ge=1, description="width of an expert's output")

    def build(self, width: int, num_tasks: int) -> nn.Module:
        return _MMoE(self, width, num_tasks)


class _MMoE(nn.Module):
    def __init__(self, spec: MMoE, width: int, num_tasks: int):
        super().__init__()
        self.experts, self.num_tasks = spec.experts, num_tasks
        self.expert = nn.Sequential(nn.Linear(width, spec.experts * spec.hidden), nn.ReLU())  # all experts in one product
        self.gate = nn.Linear(width, num_tasks * spec.experts)

    def forward(self, x_F: Tensor) -> Tensor:
        """Return task_TH, each task's mixture of the experts."""
        expert_XH = self.expert(x_F).unflatten(-1, (self.experts, -1))
        gate_TX = self.gate(x_F).unflatten(-1, (self.num_tasks, self.experts)).softmax(dim=-1)
        return torch.matmul(gate_TX, expert_XH)
