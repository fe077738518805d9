"""Entire-space multi-task model. Shapes: B = examples or requests, C = candidates, T = tasks."""

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.ranker_inputs import RankerInputs, SharingSpec


class ESMM(SharingSpec):
    """A task that can only happen after another: P(buy) = P(click) * P(buy | click). Ma et al. 2018,
    https://arxiv.org/abs/1804.07931.

    Both losses are taken on all examples and P(buy | click) has none of its own, so nothing is learned from clicked examples
    alone, which are a biased sample. Differs from the paper: any tasks may depend on one another, in chains too, and tasks that
    `given` does not name get a tower of their own. Labels must hold that no buy is without a click.
    """

    kind: Literal["esmm"] = "esmm"
    given: dict[str, str] = Field(
        default_factory=dict,
        description="task -> the task it can only follow, such as {buy: click}; empty: none depends on another",
    )
    hidden: int = Field(64, ge=1, description="width of each task's tower")

    def check(self, tasks: Sequence[str], regression: Collection[str] = ()) -> None:
        for after, before in self.given.items():
            for name in (after, before):
                if name not in tasks:
                    raise ValueError(f"sharing.given names the unknown task {name!r}: choose from {list(tasks)}")
                if name in regression:
                    raise ValueError(f"sharing.given names {name!r}, which is a number and has no probability: take it out")
            self._before(after)

    def build(self, fields: int, dim: int, tasks: Sequence[str]) -> nn.Module:
        self.check(tasks)
        return _ESMM(self, fields * dim, list(tasks))

    def _before(self, task: str) -> list[str]:
        """The tasks that `task` follows, the nearest first."""
        chain = [task]
        while (before := self.given.get(chain[-1])) is not None:
            if before in chain:
                raise ValueError(f"sharing.given goes round in a circle at {before!r}: take {chain[-1]!r} out")
            chain.append(before)
        return chain[1:]


class _ESMM(nn.Module):
    def __init__(self, spec: ESMM, width: int, tasks: list[str]):
        super().__init__()
        self.before = [tasks.index(spec.given[task]) if task in spec.given else None for task in tasks]
        self.order = sorted(range(len(tasks)), key=lambda t: len(spec._before(tasks[t])))  # what a task follows comes first
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, 1)) for _ in tasks
        )

    def task_parameters(self) -> list[nn.Parameter]:
        """The towers of tasks that no other follows: a loss of "buy" reaches the tower of "click" too."""
        own = [tower for t, tower in enumerate(self.towers) if t not in self.before]
        return [parameter for tower in own for parameter in tower.parameters()]

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Return logit_BCT, each that of the task itself and not of its condition."""
        x_BCW = inputs.field_BCFD.flatten(-2)
        own = [tower(x_BCW).squeeze(-1).float() for tower in self.towers]  # a product of rounded logits rounds worse
        logits: dict[int, Tensor] = {}
        for t in self.order:
            before = self.before[t]
            logits[t] = own[t] if before is None else product_logit(logits[before], own[t])
        return torch.stack([logits[t] for t in range(len(own))], dim=-1)


def product_logit(a: Tensor, b: Tensor) -> Tensor:
    """The logit of sigmoid(a) * sigmoid(b), without ever forming a probability that could round to 0 or 1.

    From p = 1 / ((1 + e^-a) (1 + e^-b)) follows (1 - p) / p = e^-a + e^-b + e^-(a + b).
    """
    return -torch.logsumexp(torch.stack([-a, -b, -a - b]), dim=0)
