"""Averaging with the model that a warm day begins from. Shapes: R = rows of a table, D = width."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def averaged(
    now: Mapping[str, Tensor], before: Mapping[str, Tensor], weight: float, skip: Collection[str] = ()
) -> dict[str, Tensor]:
    """(1 - weight) * now + weight * before, of parameters by name; rows that a table did not have before are as they are now.

    Over days this is an exponential moving average of models, each day's with weight (1 - weight) * weight ** age. The mean of
    two ends of one training: WiSE-FT, Wortsman et al. 2022, https://arxiv.org/abs/2109.01903. Differs from the paper: tables
    grow, and the parameters of `skip` and whole numbers stay as they are now. Raises ValueError where a shape fits no growth.
    """
    return {name: t if name in skip or name not in before else _mixed(name, t, before[name], weight) for name, t in now.items()}


def _mixed(name: str, now: Tensor, before: Tensor, weight: float) -> Tensor:
    if not now.is_floating_point():
        return now
    if now.shape[1:] != before.shape[1:] or (now.dim() == 0 and before.dim()) or (len(now.shape) and len(now) < len(before)):
        raise ValueError(f"{name} is {tuple(now.shape)} now and was {tuple(before.shape)}, of which it is no growth")
    if not now.dim():
        return torch.lerp(now, before, weight)
    mixed = now.clone()
    mixed[: len(before)].lerp_(before, weight)
    return mixed
