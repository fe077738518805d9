"""Weights of examples: what the techniques that make them are given, and what is asked of them.

Shapes: B = examples or events of one task.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recsys.denoise.denoiser import DenoiserSpec, Learned
from recsys.train.job import BadWeightsError
from recsys.weighing import Context

SHIFT = 0.01  # length of the step by which slopes are measured, over all parameters together
Trust = DenoiserSpec | Learned
Found = Mapping[str, Tensor]


class Passes:
    """Further forward passes of the present batch: `forward(found)` gives loss_B."""

    def __init__(self, forward: Callable[[Found], Tensor], model: nn.Module, found: Found, seed: int):
        self.forward, self.parameters, self.found, self.seed = (
            forward,
            [p for p in model.parameters() if p.requires_grad],
            found,
            seed,
        )

    def again(self, number: int) -> Tensor:
        """loss_B with other dropout."""
        with torch.no_grad(), _random(self.seed + 1 + number):
            return self.forward(self.found).float()

    def slope(self, loss_B: Tensor, weight_B: Tensor) -> Tensor:
        """<grad loss_b, grad sum(weight * loss)> by central difference, over dense parameters and looked-up vectors alike.

        Two forward passes in place of a gradient per example: DARTS, Liu et al. 2019, https://arxiv.org/abs/1806.09055, eq. 7.
        """
        names = list(self.found)
        tensors = [*self.parameters, *(self.found[name] for name in names)]
        gradients = torch.autograd.grad((loss_B * weight_B).sum(), tensors, retain_graph=True, allow_unused=True)
        known = [g for g in gradients if g is not None]
        norm = torch.stack([g.float().pow(2).sum() for g in known]).sum().sqrt().clamp(min=1e-12)
        size = SHIFT / norm
        dense, leaves = gradients[: len(self.parameters)], gradients[len(self.parameters) :]
        sides = []
        for sign in (1, -1):
            found = {
                name: self.found[name].detach() if g is None else self.found[name].detach() + sign * size * g
                for name, g in zip(names, leaves, strict=True)
            }
            with torch.no_grad(), _random(self.seed), _moved(self.parameters, dense, sign * size), _exact(loss_B.device):
                sides.append(self.forward(found).float())
        return (sides[0] - sides[1]) / (2 * size)


def context(passes: Passes, loss_B: Tensor, *, step: int, group_B: Tensor) -> Context:
    """What a denoiser of these losses is given."""
    return Context(
        step=step, group_B=group_B, seed=passes.seed, again=passes.again, slope=lambda weight_B: passes.slope(loss_B, weight_B)
    )


def trust(denoise: Trust, kind: str, loss_B: Tensor, label_B: Tensor, here: Context) -> tuple[Tensor, Tensor | None]:
    """The denoiser's weights, and its own loss where it learns. Raises BadWeightsError."""
    loss_B = loss_B.detach()
    if not isinstance(denoise, Learned):
        return checked(denoise(loss_B, label_B, here), kind), None
    weight_B = denoise(loss_B, label_B, here)
    trusted_B = checked(denoise.trusted(weight_B, here), kind)
    return trusted_B, denoise.own_loss(weight_B, loss_B, label_B, here)


def trust_terms(weight_B: Tensor) -> dict[str, Tensor]:
    """What is logged of trust: its mean, and the effective sample size as a share of the examples, (sum w)² / (B sum w²)."""
    effective = weight_B.sum() ** 2 / (weight_B**2).sum().clamp(min=1e-12) / max(1, len(weight_B))
    return {"trusted_share": weight_B.mean(), "trusted_effective_share": effective}


def added(owns: Sequence[Tensor | None], share: Tensor) -> Tensor | None:
    """The own losses of techniques that learn, means over a part that is this share of its batch."""
    known = [own for own in owns if own is not None]
    return torch.stack(known).sum() * share if known else None


def checked(weight_B: Tensor, kind: str) -> Tensor:
    """Detached weights. Raises BadWeightsError, which names the technique, where no loss can be made with them."""
    weight_B = weight_B.detach()
    if not len(weight_B):
        return weight_B
    bad = ~torch.isfinite(weight_B).all(), (weight_B < 0).any(), ~(weight_B > 0).any()
    faults = torch.stack(bad).tolist()
    for fault, what in zip(faults, ("not finite numbers", "negative", "all zero"), strict=True):
        if fault:
            raise BadWeightsError(f"the weights of {kind} are {what}")
    return weight_B


@contextmanager
def _random(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _moved(tensors: Sequence[Tensor], directions: Sequence[Tensor | None], size: Tensor) -> Iterator[None]:
    """The tensors elsewhere for a while; autograd, which has saved them, sees them back in place."""
    before = [tensor.data for tensor in tensors]
    try:
        for tensor, direction in zip(tensors, directions, strict=True):
            if direction is not None:
                tensor.data = tensor.data + size * direction
        yield
    finally:
        for tensor, data in zip(tensors, before, strict=True):
            tensor.data = data


def _exact(device: torch.device) -> torch.autocast:
    """Differences of losses would drown in the rounding of half precision."""
    return torch.autocast(device.type, enabled=False)
