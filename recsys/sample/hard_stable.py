"""Hard negatives of some rows, shared by all, beside targets of other rows.

Shapes: N = predictions, X = rows that are drawn, M = negatives shared by the batch, U = different ones among them.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from recsys.sample.hard import Against, HardSpec, Standing, above
from recsys.sample.hardest import known_columns


class Stable(HardSpec):
    """Stable training of STAR, Zhan et al. 2021, https://arxiv.org/abs/2104.08051.

    Hard negatives alone can push a whole region of items away at once; targets of other rows among them keep it in place.

    A drawn row gives one of its `best` guarded items; every row is compared with all that were given and with `targets` of the
    batch, but never with an item of its own window. With `bpr` this is the paper's loss, whose one mean over all pairs equals
    the mean over rows where all rows have as many. Differs from the paper: the lists are the present model's, not a warm-up
    model's, made once; a batch of thousands of rows gives `count` hard items, not one of each row.
    """

    kind: Literal["stable"] = "stable"
    needs_pairs: ClassVar[bool] = True  # nobody knows how often such an item is expected, which other losses ask for
    best: int = Field(200, ge=1, description="a row's hard item is one of so many of its best")
    count: int = Field(512, ge=1, description="rows of a batch that give a hard item")
    targets: int = Field(512, ge=0, description="targets of the batch that are negatives of other rows")

    @property
    def reach(self) -> int:
        return self.best

    def __call__(self, standing: Standing) -> Against:
        """The shared negatives' scores, -inf for a row's known positives."""
        generator = Generator().manual_seed(standing.seed)
        place_M = torch.cat([self._targets(standing, generator), self._hard(standing, generator)])
        place_U, which_M = place_M.unique(return_inverse=True)
        known_BL = known_columns(standing.place_N, standing.length_B, place_U, len(standing.item_CD))
        known_BU = torch.zeros(len(known_BL), len(place_U) + 1, dtype=torch.bool, device=known_BL.device)
        known_BM = known_BU.scatter_(1, known_BL, True)[:, which_M + 1]
        score_NM = (standing.user_ND @ standing.item_CD[place_M].T).float()
        negative_NM = score_NM.masked_fill(known_BM[standing.sequence_N], -torch.inf)
        return Against(negative_NM, negative_NM.new_zeros(len(place_M)), terms=above(standing, negative_NM))

    def _targets(self, standing: Standing, generator: Generator) -> Tensor:
        return standing.place_N[_some(standing.place_N, self.targets, generator)]

    def _hard(self, standing: Standing, generator: Generator) -> Tensor:
        row_X = _some(standing.place_N, self.count, generator)
        chosen = standing.hardest(self.best, row_X=row_X)
        number_X = chosen.exists_NK.sum(1)  # they come first
        at_X = torch.rand(len(row_X), generator=generator).to(row_X.device)
        pick_X = (at_X * number_X).long().clamp(max=chosen.exists_NK.shape[1] - 1)
        return standing.place_S[chosen.place_NK.gather(1, pick_X[:, None]).squeeze(1)[number_X > 0]]


def _some(place_N: Tensor, count: int, generator: Generator) -> Tensor:
    """At most so many different rows."""
    return torch.randperm(len(place_N), generator=generator)[:count].to(place_N.device)
