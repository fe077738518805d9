"""Pairs of vectors that belong together, and the cosines between them. Shapes: V = pairs, D = width."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from recsys.spec import Spec


class Pairs(NamedTuple):
    """Two views of one thing, or a user and the item that followed. Vectors of any length: only their direction counts.

    Rows of one side with an equal number in `first_V` or `second_V` are the same thing, and are not told apart.
    """

    first_VD: Tensor
    second_VD: Tensor
    first_V: Tensor
    second_V: Tensor
    modality_VD: tuple[Tensor, ...] = ()  # descriptions of the second side, such as vectors of an item's text and image
    seed: int = 0  # of what a loss draws: the same at every call


class ContrastSpec(Spec):
    """A subclass adds `kind` and `__call__`, which gives one loss per pair; its mean is that of the paper."""

    @abstractmethod
    def __call__(self, pairs: Pairs) -> Tensor:
        """loss_V in float32 or better, whatever the vectors' precision."""


def unit(vector_VD: Tensor) -> Tensor:
    """Of length 1, or zero where all numbers are; not in half precision."""
    return functional.normalize(vector_VD if vector_VD.dtype == torch.float64 else vector_VD.float(), dim=-1)


def products(first_VD: Tensor, second_VD: Tensor) -> Tensor:
    """Inner products of every two rows, kept from autocast: a cosine is divided by a small temperature."""
    with torch.autocast(first_VD.device.type, enabled=False):
        return first_VD @ second_VD.T
