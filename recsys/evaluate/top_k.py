"""Exact top-k of inner products over the whole catalogue, a chunk of items at a time.

Shapes: B = users of one batch, D = width, I = rows of the item table, C = items of one chunk, G = groups of a chunk, W = items
of a group, K = list length, E = excluded (user, item) pairs, N = candidates, H = groups that hold some, R = users with some,
P = places.
"""

import itertools
import math

import torch
from torch import Tensor

from recsys.columns import FIRST_ID
from recsys.jagged import Jagged

CHUNK_SCORES = 2**19  # scores in memory at once: 2 MiB stay in the caches of two cores
CHUNK_SCORES_DEVICE = 2**26  # an accelerator wants larger products; 256 MiB
GROUP = 128  # scores that are looked at one by one only where their maximum beats the worst of the list


class TopK:
    """The `k` items of the highest inner product with each user's vector, the lower id first among equal scores.

    Exact: every product is computed, in the type of the vectors. After the first chunk a user's list has a worst score, and
    later items enter only above it (an equal one has the higher id, and loses): about K log(I / C) of I are ever sorted.
    Memory besides the vectors: CHUNK_SCORES scores and at most B (3 K + C) candidates, C = CHUNK_SCORES / B (but at least
    GROUP), whatever the catalogue; the excluded pairs, and that once for every thread.
    """

    def __init__(self, item_ID: Tensor):
        self.item_ID = item_ID.detach()
        self.largest = _largest(self.item_ID)

    @torch.no_grad()
    def __call__(self, user_BD: Tensor, k: int, exclude: Jagged | None = None) -> tuple[Tensor, Tensor]:
        """item_BK and score_BK, best first, K being at most the rows of the table; 0 and -inf where nothing is left.

        Never an item of the user's list in `exclude` nor an id below FIRST_ID. All scores of a user are NaN if one of an item
        that was not excluded is NaN or infinite.
        """
        pool, sure = _Pool(user_BD, min(k, len(self.item_ID))), self._surely_finite(user_BD)
        chunk = _chunk(user_BD, len(self.item_ID))
        bad_B1 = torch.zeros(len(user_BD), 1, dtype=torch.bool, device=user_BD.device)
        for begin, (row_E, item_E) in zip(
            range(0, len(self.item_ID), chunk), _by_chunk(exclude, len(self.item_ID), chunk, user_BD.device), strict=True
        ):
            score_BC = inner_products(user_BD, self.item_ID[begin : begin + chunk])
            score_BC[:, : max(0, FIRST_ID - begin)] = -torch.inf
            if len(row_E):
                score_BC[row_E, item_E - begin] = -torch.inf
            if not sure:
                bad_B1 |= (score_BC.isnan() | (score_BC == torch.inf)).any(1, keepdim=True)
            pool.offer(score_BC, begin)
        item_BK, score_BK = pool.merged()
        return item_BK, score_BK.masked_fill(bad_B1, torch.nan)

    def _surely_finite(self, user_BD: Tensor) -> bool:
        """No sum of products can overflow: that saves a look at every score."""
        most = self.largest * _largest(user_BD) * user_BD.shape[1]
        return most < torch.finfo(user_BD.dtype).max / 2  # false for NaN too


class _Pool:
    """The best K of what was offered so far, and candidates that may yet displace some of them."""

    def __init__(self, user_BD: Tensor, k: int):
        self.item_BK = torch.zeros(len(user_BD), k, dtype=torch.int64, device=user_BD.device)
        self.score_BK = user_BD.new_full((len(user_BD), k), -torch.inf)
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.count_B = self.item_BK.new_zeros(len(user_BD))

    def offer(self, score_BC: Tensor, begin: int) -> None:
        """Take what beats the worst of each list; chunks come in the order of ids. Lists are sorted anew only when some user
        has more candidates than fit twice: a bar that is a little old lets in more than it must, and loses nothing."""
        k = self.score_BK.shape[1]
        first = begin == 0
        bar_B1 = _kth(score_BC, k) if first else self.score_BK[:, -1:]
        row_N, item_N, score_N = _above(score_BC, bar_B1, inclusive=first)
        if len(row_N) == 0:
            return
        self.waiting.append((row_N, item_N + begin, score_N))
        self.count_B += torch.bincount(row_N, minlength=len(self.count_B))
        if first or int(self.count_B.max()) > 2 * k:
            self.merged()

    def merged(self) -> tuple[Tensor, Tensor]:
        """Item_BK and score_BK of all that was offered."""
        if not self.waiting:
            return self.item_BK, self.score_BK
        row_N, item_N, score_N = (torch.cat(parts) for parts in zip(*self.waiting, strict=True))
        k, row_R = self.score_BK.shape[1], self.count_B.nonzero()[:, 0]
        columns = k + int(self.count_B.max())
        if len(self.waiting) > 1:  # chunk after chunk: bring each user's together, in the order of ids
            row_N, order_N = row_N.sort(stable=True)
            item_N, score_N = item_N[order_N], score_N[order_N]
        place_N = k + torch.arange(len(row_N), device=row_N.device) - (self.count_B.cumsum(0) - self.count_B)[row_N]
        line_N = ((self.count_B > 0).cumsum(0) - 1)[row_N]
        score_RP = torch.cat([self.score_BK[row_R], self.score_BK.new_full((len(row_R), columns - k), -torch.inf)], dim=1)
        item_RP = torch.cat([self.item_BK[row_R], self.item_BK.new_zeros(len(row_R), columns - k)], dim=1)
        score_RP[line_N, place_N], item_RP[line_N, place_N] = score_N, item_N
        score_RP, order_RP = score_RP.sort(dim=1, descending=True, stable=True)  # equals stay in the order of ids
        self.score_BK[row_R], self.item_BK[row_R] = score_RP[:, :k], item_RP.gather(1, order_RP[:, :k])
        self.waiting, self.count_B = [], torch.zeros_like(self.count_B)
        return self.item_BK, self.score_BK


def inner_products(user_BD: Tensor, item_CD: Tensor) -> Tensor:
    """score_BC. On a CPU by oneDNN: half the time of the BLAS behind `@`, and equal vectors have equal scores; `@` sums at
    the edge of a block in another order than in its middle, so that copies of an item need not tie."""
    if user_BD.device.type == "cpu" and user_BD.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(user_BD, item_CD, None, "none", [], "")
        return found
    return user_BD @ item_CD.T


def _above(score_BC: Tensor, bar_B1: Tensor, *, inclusive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of scores above the bar of their row (with `inclusive`, also of those at it), in that order."""
    above = torch.ge if inclusive else torch.gt
    missing = -score_BC.shape[1] % GROUP
    if missing:
        score_BC = torch.nn.functional.pad(score_BC, (0, missing), value=-torch.inf)
    score_BGW = score_BC.view(len(score_BC), -1, GROUP)
    row_H, group_H = above(score_BGW.amax(2), bar_B1).nonzero(as_tuple=True)
    score_HW = score_BGW[row_H, group_H]
    hit_N, column_N = above(score_HW, bar_B1[row_H]).nonzero(as_tuple=True)
    return row_H[hit_N], group_H[hit_N] * GROUP + column_N, score_HW[hit_N, column_N]


def _kth(score_BC: Tensor, k: int) -> Tensor:
    """The `k`th best score of each row, or the lowest finite number where it has fewer."""
    lowest = torch.finfo(score_BC.dtype).min
    if k > score_BC.shape[1]:
        return score_BC.new_full((len(score_BC), 1), lowest)
    return score_BC.topk(k, dim=1).values[:, -1:].clamp(min=lowest)


def _chunk(user_BD: Tensor, num_items: int) -> int:
    scores = CHUNK_SCORES if user_BD.device.type == "cpu" else CHUNK_SCORES_DEVICE
    return min(num_items, max(GROUP, scores // max(1, len(user_BD)) // GROUP * GROUP))


def _by_chunk(exclude: Jagged | None, num_items: int, chunk: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Excluded (row_E, item_E) of every chunk."""
    begins = torch.arange(0, num_items + chunk, chunk)[: math.ceil(num_items / chunk) + 1]
    if exclude is None:
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        return [(nothing, nothing)] * (len(begins) - 1)
    item_E, order_E = torch.from_numpy(exclude.item_E).long().sort()
    row_E = torch.from_numpy(exclude.row_E)[order_E]
    cuts = torch.searchsorted(item_E, begins).tolist()
    item_E, row_E = item_E.to(device), row_E.to(device)
    return [(row_E[low:high], item_E[low:high]) for low, high in itertools.pairwise(cuts)]


def _largest(vectors: Tensor) -> float:
    """The largest absolute number, NaN if there is one; without a copy."""
    if vectors.numel() == 0:
        return 0.0
    low, high = torch.aminmax(vectors)
    return float(torch.maximum(low.abs(), high.abs()))
