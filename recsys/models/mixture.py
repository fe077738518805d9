"""What several ways of sharing are made of. Shapes: leading axes are free; W = input width, H = hidden, X = experts, G = gates,
T = tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """One hidden layer each, all in one product."""

    def __init__(self, width: int, experts: int, hidden: int):
        super().__init__()
        self.experts, self.layer = experts, nn.Linear(width, experts * hidden)

    def forward(self, x_W: Tensor) -> Tensor:
        """Return expert_XH."""
        return self.layer(x_W).relu().unflatten(-1, (self.experts, -1))


class Gate(nn.Module):
    """Softmax weights of experts, for each of the named readers. While training it keeps the mean entropy of the weights, in
    nats: near 0 the gate has collapsed to one expert, log X is an even mixture."""

    def __init__(self, width: int, experts: int, names: Sequence[str]):
        super().__init__()
        self.names, self.experts, self.layer = list(names), experts, nn.Linear(width, len(names) * experts)
        self.entropy_G = torch.zeros(len(names))

    def forward(self, x_W: Tensor) -> Tensor:
        """Return weight_GX."""
        weight_GX = self.layer(x_W).unflatten(-1, (len(self.names), self.experts)).softmax(dim=-1)
        if self.training:
            self.entropy_G = torch.special.entr(weight_GX.detach()).sum(-1).flatten(0, -2).mean(0)
        return weight_GX


class Towers(nn.Module):
    """One linear tower per task."""

    def __init__(self, num_tasks: int, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_tasks, hidden) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, task_TH: Tensor) -> Tensor:
        """Return logit_T."""
        return (task_TH * self.weight).sum(-1) + self.bias
