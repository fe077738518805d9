"""One bottom for all tasks. Shapes: leading dimensions are free; F = input width, H = hidden, T = tasks."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from recsys.spec import Spec


class SharedBottom(Spec):
    """Hard parameter sharing, Caruana 1997, https://doi.org/10.1023/A:1007379606734: the plainest multi-task model."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: int = Field(64, ge=1)

    def build(self, width: int, num_tasks: int) -> nn.Module:
        return _SharedBottom(self, width, num_tasks)


class _SharedBottom(nn.Module):
    def __init__(self, spec: SharedBottom, width: int, num_tasks: int):
        super().__init__()
        self.num_tasks = num_tasks
        self.bottom = nn.Sequential(nn.Linear(width, spec.hidden), nn.ReLU())

    def forward(self, x_F: Tensor) -> Tensor:
        """Return task_TH, the same vector for every task."""
        hidden_H = self.bottom(x_F)
        return hidden_H.unsqueeze(-2).expand(*hidden_H.shape[:-1], self.num_tasks, hidden_H.shape[-1])
