"""Arithmetic on the gradients of several tasks. Shapes: T = tasks, P = elements of one tensor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Losses = Callable[[], Tensor]
Gradients = Sequence[Tensor | None]  # one per tensor; None: the task does not use it


def weigh(loss_T: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Each task's loss times its weight."""
    assert loss_T.shape == (len(weights),), f"{tuple(loss_T.shape)} losses for {len(weights)} tasks"
    return loss_T * loss_T.new_tensor(list(weights.values()))


def loss_terms(total: Tensor, loss_T: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
    """What every balancer logs."""
    return {"loss": total.detach(), **per_task("loss", loss_T, tasks)}


def per_task(name: str, value_T: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
    """One term per task: `name/<task>`."""
    return {f"{name}/{task}": value for task, value in zip(tasks, value_T.detach(), strict=True)}


def backward(total: Tensor, tensors: Sequence[Tensor]) -> None:
    """Add the gradient of `total` to `.grad` of these tensors and of no other."""
    if total.requires_grad:
        torch.autograd.backward(total, inputs=list(tensors))


def task_gradients(loss_T: Tensor, tensors: Sequence[Tensor]) -> list[Gradients]:
    """Each task's gradient, one backward pass per task through one graph, which is then gone. No `.grad` changes."""
    if not loss_T.requires_grad:
        return [[None] * len(tensors) for _ in loss_T]
    last = len(loss_T) - 1
    return [
        torch.autograd.grad(loss, tensors, retain_graph=task != last, allow_unused=True)
        for task, loss in enumerate(loss_T.unbind())
    ]


def gram(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of the tasks' gradients, the tensors of each taken as one long vector: gram_TT, float64 on the CPU."""
    gram_TT = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for of_tensor in zip(*gradients, strict=True):
        used = [task for task, gradient in enumerate(of_tensor) if gradient is not None]
        if used:
            gradient_TP = torch.stack([gradient.flatten() for gradient in of_tensor if gradient is not None])
            gram_TT[torch.tensor(used)[:, None], torch.tensor(used)] += (gradient_TP @ gradient_TP.T).double().cpu()
    return gram_TT


def add_weighted(tensors: Sequence[Tensor], gradients: Sequence[Gradients], weights: Sequence[float]) -> None:
    """Add the weighted sum of the tasks' gradients to `.grad`."""
    for tensor, of_tensor in zip(tensors, zip(*gradients, strict=True), strict=True):
        for gradient, weight in zip(of_tensor, weights, strict=True):
            if gradient is None:
                continue
            if tensor.grad is None:  # a new tensor: autograd may hand out one gradient for two tensors
                tensor.grad = torch.zeros_like(tensor)
            tensor.grad.add_(gradient, alpha=weight)


@contextmanager
def same_randomness(tensors: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
    """Give a function that puts torch's generators back to where they were on entry, so that dropout repeats itself."""
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    cpu, cuda = torch.get_rng_state(), {device: torch.cuda.get_rng_state(device) for device in devices}

    def rewind() -> None:
        torch.set_rng_state(cpu)
        for device, state in cuda.items():
            torch.cuda.set_rng_state(state, device)

    yield rewind
