"""The items that the present model scores highest for each row, of a pool that a batch shares.

Shapes: N = predictions, B = sequences, L = known items of a row, D = width, C = rows of the item table that a batch needs, S =
items of the pool, K = items chosen for each prediction, X = any rows of C.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recsys.batch import Ids

CHUNK_SCORES = 2_000_000  # 8 MB of float32
CHUNK_SCORES_GPU = 64_000_000
NOWHERE = 0  # the column before the pool's: where a known item stands that the pool lacks


class Chosen(NamedTuple):
    """`place_NK`: columns of the pool, best first. `exists_NK`: False where a row has no more candidates."""

    place_NK: Tensor
    exists_NK: Tensor


def columns(place_X: Tensor, place_S: Tensor, num_rows: int) -> Tensor:
    """1 + where in the pool these rows of the item table stand, `NOWHERE` for those that it lacks. `place_S` are distinct."""
    column_C = torch.full((num_rows,), NOWHERE, dtype=torch.int64, device=place_S.device)
    column_C[place_S] = torch.arange(1, len(place_S) + 1, device=place_S.device)
    return column_C[place_X]


def known_columns(place_N: Tensor, length_B: Tensor, place_S: Tensor, num_rows: int) -> Tensor:
    """column_BL of every event of each sequence, padded by `NOWHERE`."""
    return Ids(columns(place_N, place_S, num_rows), length_B).padded()


@torch.no_grad()
def hardest(user_ND: Tensor, item_SD: Tensor, known_BL: Tensor, sequence_N: Tensor, *, count: int, skip: int = 0) -> Chosen:
    """The `count` best of the pool for every row, after the `skip` best. Row n leaves out the columns known_BL[sequence_N[n]].

    A chunk of rows at a time: memory is O(chunk + N * K), not O(N * S).
    """
    count = max(1, min(count, len(item_SD) - skip))
    scores = CHUNK_SCORES_GPU if user_ND.is_cuda else CHUNK_SCORES
    step = max(1, scores // (len(item_SD) + 1))
    padded_SD = torch.cat([item_SD.new_zeros(1, item_SD.shape[1]), item_SD])
    place_NK = torch.empty(len(user_ND), count, dtype=torch.int64, device=user_ND.device)
    exists_NK = torch.zeros(len(user_ND), count, dtype=torch.bool, device=user_ND.device)
    for begin in range(0, len(user_ND), step):
        rows = slice(begin, begin + step)
        score_CS = (user_ND[rows] @ padded_SD.T).float()
        score_CS.scatter_(1, known_BL[sequence_N[rows]], -torch.inf)
        score_CS[:, NOWHERE] = -torch.inf
        best_CK, column_CK = score_CS.topk(min(skip + count, score_CS.shape[1]), dim=1)
        place_NK[rows], exists_NK[rows] = column_CK[:, -count:] - 1, best_CK[:, -count:].isfinite()
    return Chosen(place_NK.clamp_(min=0), exists_NK)
