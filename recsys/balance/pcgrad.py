"""Take out of each task's gradient what works against another task. Shapes: T = tasks."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from recsys.balance.gradients import Losses, add_weighted, gram, loss_terms, task_gradients, weigh
from recsys.spec import Spec


class PCGrad(Spec):
    """Project each task's gradient off those of the tasks it conflicts with, in random order, and sum what is left.

    Yu et al. 2020, https://arxiv.org/abs/2001.06782. Only what is shared is projected: the dense parameters and the batch's
    embedding vectors, as one long vector; a task's own parameters get the plain gradient. One backward pass per task.
    Differs from the paper in the arithmetic alone: every projected gradient is a weighted sum of the original ones, so the
    projections are worked out on the inner products of the tasks, in float64, and applied once.
    """

    kind: Literal["pcgrad"] = "pcgrad"

    def build(self, weights: Mapping[str, float]) -> nn.Module:
        return _PCGrad(weights)


class _PCGrad(nn.Module):
    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        self.weights = dict(weights)

    def forward(
        self, losses: Losses, shared: Sequence[Tensor], own: Sequence[Tensor], generator: Generator
    ) -> dict[str, Tensor]:
        loss_T = losses()
        weighed_T = weigh(loss_T, self.weights)
        gradients = task_gradients(weighed_T, [*shared, *own])
        gram_TT = gram([of_task[: len(shared)] for of_task in gradients])
        add_weighted(shared, [of_task[: len(shared)] for of_task in gradients], without_conflicts(gram_TT, generator))
        add_weighted(own, [of_task[len(shared) :] for of_task in gradients], [1.0] * len(gradients))
        terms = loss_terms(weighed_T.sum(), loss_T, list(self.weights))
        return {**terms, "conflicting_share": conflicting_share(gram_TT)}


def without_conflicts(gram_TT: Tensor, generator: Generator) -> list[float]:
    """How much of each task's original gradient is in the sum of the projected ones."""
    weight_TT = torch.eye(
        len(gram_TT), dtype=gram_TT.dtype
    )  # row i: the projected gradient of task i as a sum of the originals
    for i, weight_T in enumerate(weight_TT):
        for j in torch.randperm(len(gram_TT), generator=generator, device=generator.device).tolist():
            along_j = weight_T @ gram_TT[:, j]
            if j != i and along_j < 0 < gram_TT[j, j]:
                weight_T[j] -= along_j / gram_TT[j, j]
    return weight_TT.sum(0).tolist()


def conflicting_share(gram_TT: Tensor) -> Tensor:
    """The share of the pairs of tasks whose gradients point apart; 0 for a single task."""
    pairs = len(gram_TT) * (len(gram_TT) - 1)
    return (gram_TT < 0).sum() / max(pairs, 1)
