"""Values of a feature left out at random. Shapes: V = rows, N = values of all of them."""

import torch
from torch import Generator, Tensor

from recsys.augment.view import rows, uniform
from recsys.batch import Ids
from recsys.columns import FIRST_ID


def value_dropout(codes: Ids, share: float, generator: Generator) -> Ids:
    """Each value goes with probability `share`, but never the last one of a row: a feature of one value stays as it is.

    Codes below FIRST_ID, which say that a value is unknown, go always. The generator is on the CPU.
    """
    row_N = rows(codes.length_B)
    drawn_N = uniform(row_N, generator).masked_fill(codes.value_N < FIRST_ID, -1)
    highest_V = drawn_N.new_full((len(codes.length_B),), -1).scatter_reduce(0, row_N, drawn_N, "amax")
    kept_N = (drawn_N >= 0) & ((drawn_N >= share) | (drawn_N == highest_V[row_N]))
    return Ids(codes.value_N[kept_N], _count(row_N[kept_N], codes.length_B))


def _count(row_N: Tensor, length_V: Tensor) -> Tensor:
    return torch.zeros_like(length_V).index_add(0, row_N, torch.ones_like(row_N))
