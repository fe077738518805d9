"""One bottom for all tasks. Shapes: B = examples or requests, C = candidates, H = hidden, T = tasks."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from recsys.models.mixture import Towers
from recsys.models.ranker_inputs import RankerInputs, SharingSpec


class SharedBottom(SharingSpec):
    """Hard parameter sharing, Caruana 1997, https://doi.org/10.1023/A:1007379606734: the plainest multi-task model."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: int = Field(64, ge=1)

    def build(self, fields: int, dim: int, tasks: Sequence[str]) -> nn.Module:
        return _SharedBottom(self, fields * dim, len(tasks))


class _SharedBottom(nn.Module):
    def __init__(self, spec: SharedBottom, width: int, num_tasks: int):
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(width, spec.hidden), nn.ReLU())
        self.towers = Towers(num_tasks, spec.hidden)

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.towers.parameters())

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Return logit_BCT."""
        hidden_BCH = self.bottom(inputs.field_BCFD.flatten(-2))
        return self.towers(hidden_BCH[:, :, None])
