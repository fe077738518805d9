"""Progressive layered extraction. Shapes: B = examples or requests, C = candidates, W = width of a layer's input, H = hidden,
X = experts, T = tasks.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.mixture import Experts, Gate, Towers
from recsys.models.ranker_inputs import RankerInputs, SharingSpec


class PLE(SharingSpec):
    """Every task has experts of its own beside the shared ones, in several layers. Tang et al. 2020,
    https://doi.org/10.1145/3383313.3412236.

    A task's gate weighs its own and the shared experts and reads what the task's own layer below gave; the shared gate weighs
    all experts, and the last layer needs none. Differs from the paper: an expert is one layer and a tower is linear.
    """

    kind: Literal["ple"] = "ple"
    layers: int = Field(2, ge=1)
    shared_experts: int = Field(2, ge=1)
    own_experts: int = Field(2, ge=1, description="experts of each task")
    hidden: int = Field(64, ge=1, description="width of an expert's output")

    def build(self, fields: int, dim: int, tasks: Sequence[str]) -> nn.Module:
        return _PLE(self, fields * dim, tasks)


class _Layer(nn.Module):
    def __init__(self, spec: PLE, width: int, tasks: Sequence[str], name: str, last: bool):
        super().__init__()
        both = spec.own_experts + spec.shared_experts
        self.shared = Experts(width, spec.shared_experts, spec.hidden)
        self.own = nn.ModuleList(Experts(width, spec.own_experts, spec.hidden) for _ in tasks)
        self.gates = nn.ModuleList(Gate(width, both, [f"{name}/{task}"]) for task in tasks)
        everything = len(tasks) * spec.own_experts + spec.shared_experts
        self.shared_gate = None if last else Gate(width, everything, [f"{name}/shared"])

    def forward(self, task_BCW: Sequence[Tensor], shared_BCW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return every task's mixture_BCH and the shared one; the last layer returns its shared input in its place."""
        shared_BCXH = self.shared(shared_BCW)
        own_BCXH = [own(x_BCW) for own, x_BCW in zip(self.own, task_BCW, strict=True)]
        tasks = zip(self.gates, task_BCW, own_BCXH, strict=True)
        mixed = [_mixture(gate(x_BCW), [own, shared_BCXH]) for gate, x_BCW, own in tasks]
        if self.shared_gate is None:
            return mixed, shared_BCW
        return mixed, _mixture(self.shared_gate(shared_BCW), [*own_BCXH, shared_BCXH])


class _PLE(nn.Module):
    def __init__(self, spec: PLE, width: int, tasks: Sequence[str]):
        super().__init__()
        self.num_tasks = len(tasks)
        self.layers = nn.ModuleList(
            _Layer(spec, spec.hidden if i else width, tasks, f"layer{i + 1}", last=i == spec.layers - 1)
            for i in range(spec.layers)
        )
        self.towers = Towers(len(tasks), spec.hidden)

    def task_parameters(self) -> list[nn.Parameter]:
        """Of the last layer only: below it the shared gate hands a task's experts on to all tasks."""
        last = self.layers[-1]
        return [*last.own.parameters(), *last.gates.parameters(), *self.towers.parameters()]

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Return logit_BCT."""
        shared = inputs.field_BCFD.flatten(-2)
        task = [shared] * self.num_tasks
        for layer in self.layers:
            task, shared = layer(task, shared)
        return self.towers(torch.stack(task, dim=-2))


def _mixture(gate_BC1X: Tensor, experts: Sequence[Tensor]) -> Tensor:
    return torch.matmul(gate_BC1X, torch.cat([*experts], dim=-2)).squeeze(-2)
