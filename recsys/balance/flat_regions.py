"""Seek parameters where every task's loss is low and stays low nearby. Shapes: T = tasks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from recsys.balance.gradients import (
    Gradients,
    Losses,
    add_weighted,
    gram,
    loss_terms,
    per_task,
    same_randomness,
    task_gradients,
    weigh,
)
from recsys.balance.pcgrad import without_conflicts
from recsys.spec import Spec

EPSILON = 1e-12  # only so that a task without a gradient is not moved


class FlatRegions(Spec):
    """Sharpness-aware training task by task: step away by `rho` along one task's gradient, and use the gradient found there.

    Phan et al. 2022, https://arxiv.org/abs/2211.13723, after Foret et al. 2021, https://arxiv.org/abs/2010.01412. The gradient
    there is split into the one before the step (lower loss) and the difference (flatter), and each kind is aggregated over
    the tasks by itself. What is shared and a task's own parameters are moved along their own directions, each by `rho`; own
    parameters use the gradient there. Two backward passes per task, and one more forward pass per task.
    Differs from the paper: the aggregate is scaled by the number of tasks, as the sum of losses of the other balancers is, so
    that with a `rho` near 0 a run is the same as theirs; and the batch's embedding vectors are moved together with the dense
    parameters, which for a table means that only the rows the batch touches are.
    """

    kind: Literal["flat_regions"] = "flat_regions"
    rho: float = Field(0.05, gt=0, description="length of the step away; .01 to .1 is usual")
    aggregate: Literal["mean", "pcgrad"] = Field("mean", description="over tasks: their mean, or with conflicts projected away")

    def build(self, weights: Mapping[str, float]) -> nn.Module:
        return _FlatRegions(self, weights)


class _FlatRegions(nn.Module):
    def __init__(self, spec: FlatRegions, weights: Mapping[str, float]):
        super().__init__()
        self.spec, self.weights = spec, dict(weights)

    def forward(
        self, losses: Losses, shared: Sequence[Tensor], own: Sequence[Tensor], generator: Generator
    ) -> dict[str, Tensor]:
        tasks, tensors, cut = list(self.weights), [*shared, *own], len(shared)
        with same_randomness(tensors) as rewind:
            loss_T = losses()
            weighed_T = weigh(loss_T, self.weights)
            here = task_gradients(weighed_T, tensors)
            there, nearby = [], []
            for task, gradient in enumerate(here):
                rewind()
                steps = [*ascent(gradient[:cut], self.spec.rho), *ascent(gradient[cut:], self.spec.rho)]
                with moved(tensors, steps):
                    nearby_T = losses()
                    there += task_gradients(weigh(nearby_T, self.weights)[task : task + 1], tensors)
                nearby.append(nearby_T[task].detach())
        self._add_shared(shared, [g[:cut] for g in here], [g[:cut] for g in there], generator)
        add_weighted(own, [g[cut:] for g in there], [1.0] * len(there))
        terms = loss_terms(weighed_T.sum(), loss_T, tasks)
        return {**terms, **per_task("sharpness", torch.stack(nearby) - loss_T, tasks)}

    def _add_shared(
        self, shared: Sequence[Tensor], here: Sequence[Gradients], there: Sequence[Gradients], generator: Generator
    ) -> None:
        if self.spec.aggregate == "mean":  # the two means add up to that of the gradients after the step
            return add_weighted(shared, there, [1.0] * len(there))
        flat = [difference(*pair) for pair in zip(there, here, strict=True)]
        for gradients in (here, flat):
            add_weighted(shared, gradients, without_conflicts(gram(gradients), generator))
        return None


def ascent(gradient: Gradients, rho: float) -> Gradients:
    """The step of length `rho` along the gradient of one task, all tensors taken as one vector."""
    used = [part for part in gradient if part is not None]
    if not used:
        return gradient
    scale = rho / (torch.stack([torch.linalg.vector_norm(part) for part in used]).norm() + EPSILON)
    return [None if part is None else part * scale for part in gradient]


def difference(there: Gradients, here: Gradients) -> Gradients:
    """there - here, where a tensor that the task does not use counts as 0."""
    return [None if a is None or b is None else a - b for a, b in zip(there, here, strict=True)]


@contextmanager
def moved(tensors: Sequence[Tensor], steps: Gradients) -> Iterator[None]:
    """The tensors, moved inside the block. Their memory is exchanged, not written to, so it comes back bit for bit."""
    originals = [tensor.data for tensor in tensors]
    try:
        for tensor, step in zip(tensors, steps, strict=True):
            if step is not None:
                tensor.data = tensor.data + step
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original
