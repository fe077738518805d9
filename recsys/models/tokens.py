"""Sequences as jagged tokens, a start token first, and as the padded grid that attention works on.

Shapes: B = users, N = history items of all users, M = tokens of all users (N + B), L = longest sequence in tokens, D = width.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Grid(NamedTuple):
    """Where tokens stand in a right-padded grid of `batch` rows of `length` cells. `cell_M` is None where tokens fill it."""

    batch: int
    length: int
    column_M: Tensor
    cell_M: Tensor | None

    def padded(self, x_MD: Tensor) -> Tensor:
        """x of every cell (B * L, D), zeros where no token stands."""
        if self.cell_M is None:
            return x_MD
        return x_MD.new_zeros(self.batch * self.length, *x_MD.shape[1:]).index_copy(0, self.cell_M, x_MD)

    def real(self, x_CD: Tensor) -> Tensor:
        """The tokens of a grid's cells."""
        return x_CD if self.cell_M is None else x_CD.index_select(0, self.cell_M)


def join_start(history_ND: Tensor, length_B: Tensor, start_1D: Tensor) -> tuple[Tensor, Grid]:
    """Put the start token before every user's items. Return x_MD and its grid."""
    batch, device = len(length_B), history_ND.device
    tokens_B = length_B + 1
    user_M = torch.repeat_interleave(torch.arange(batch, device=device), tokens_B)
    column_M = torch.arange(len(user_M), device=device) - torch.repeat_interleave(tokens_B.cumsum(0) - tokens_B, tokens_B)
    longest = int(tokens_B.max())
    is_start_M = column_M == 0
    x_MD = history_ND.new_empty(len(user_M), history_ND.shape[1])
    x_MD = x_MD.index_copy(0, (~is_start_M).nonzero().squeeze(1), history_ND)
    x_MD = x_MD.index_copy(0, is_start_M.nonzero().squeeze(1), start_1D.expand(batch, -1).to(x_MD.dtype))
    return x_MD, Grid(batch, longest, column_M, user_M * longest + column_M)


def join_start_padded(history_BLD: Tensor, start_1D: Tensor) -> tuple[Tensor, Grid]:
    """As `join_start` for right-padded histories, whose padding stays: x of B * (L + 1) cells."""
    batch, length, dim = history_BLD.shape
    x_BLD = torch.cat([start_1D.expand(batch, 1, dim), history_BLD], dim=1)
    column_M = torch.arange(length + 1, device=x_BLD.device).expand(batch, -1).reshape(-1)
    return x_BLD.reshape(batch * (length + 1), dim), Grid(batch, length + 1, column_M, None)


def last_token(x_MD: Tensor, grid: Grid, length_B: Tensor) -> Tensor:
    """The token after each user's last real item, of a padded grid."""
    return x_MD.view(grid.batch, grid.length, -1)[torch.arange(grid.batch, device=x_MD.device), length_B]
