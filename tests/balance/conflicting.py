"""A small model of several tasks that share its first layer and inputs. Shapes: B = examples, D = width, T = tasks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass
class Problem:
    """`vectors` stand for embeddings; `losses` has dropout, and label_BT is NaN where a task has no label."""

    label_BT: Tensor
    vectors: list[Tensor]
    bottom: nn.Parameter
    unused: nn.Parameter
    towers: list[nn.Parameter]
    dropout: float = 0.0

    @property
    def shared(self) -> list[Tensor]:
        return [self.bottom, self.unused, *self.vectors]

    @property
    def own(self) -> list[nn.Parameter]:
        return self.towers

    def losses(self) -> Tensor:
        hidden_BH = (torch.cat(self.vectors, dim=1) @ self.bottom).tanh()
        hidden_BH = functional.dropout(hidden_BH, self.dropout)
        logit_BT = torch.stack([hidden_BH @ tower for tower in self.towers], dim=1)
        exists_BT = ~self.label_BT.isnan()
        loss_BT = functional.binary_cross_entropy_with_logits(logit_BT, self.label_BT.nan_to_num(), reduction="none")
        return (loss_BT * exists_BT).sum(0) / exists_BT.sum(0).clamp(min=1)


def problem(tasks: int = 2, seed: int = 0, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> Problem:
    """Two embedding vectors of unlike width; each task's label follows its own direction of the inputs, with noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    vectors = [normal(40, 3), normal(40, 2)]
    label_BT = (torch.cat(vectors, dim=1) @ normal(5, tasks) + normal(40, tasks) > 0).to(dtype)
    return Problem(
        label_BT,
        [vector.requires_grad_() for vector in vectors],
        nn.Parameter(normal(5, 4)),
        nn.Parameter(normal(3)),
        [nn.Parameter(normal(4)) for _ in range(tasks)],
        dropout,
    )
