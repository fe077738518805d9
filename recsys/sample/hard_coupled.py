"""Hard negatives weighed by how likely it was that they would be noticed.

Shapes: N = predictions, D = width, C = rows of the item table that a batch needs, K = negatives of a row, I = rows of the item
table, F = exposure features, R = numbers of a selection vector.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from recsys.sample.hard import Against, HardSpec, Standing, above
from recsys.sample.pair_scores import pair_scores


class Coupled(HardSpec):
    """Coupled estimation technique (CET), Cai et al. 2022, https://doi.org/10.1145/3511808.3557343.

    An item that nobody could have noticed says little by not being taken, so a second model says what was in sight. Each
    weighs the other's pairs by 1 / (1 - sigmoid(score of the negative / temperature)) = 1 + exp(score / temperature).

    The relevance model is the retriever; the selection model reads item by item how visible it was (recsys/sample/exposure.py),
    which the retriever is not given, and the retriever's vectors, detached. Only the retriever serves.
    Differs from the paper: negatives are each row's best of the pool at this step, guarded as in `dynamic`; weights are
    clipped; the selection model is small and no second encoder; the relevance model's weights come from its training pass,
    dropout included. As in the paper, pairs leave the level of both models' scores open, and the weights follow it.
    """

    kind: Literal["coupled"] = "coupled"
    needs_pairs: ClassVar[bool] = True
    whole_vectors: ClassVar[bool] = True
    count: int = Field(100, ge=1, description="negatives of each row")
    skip: int = Field(0, ge=0, description="so many of the best are passed over")
    temperature: float = Field(10.0, gt=0, description="what scores are divided by in the weights; larger: more even")
    clip: float = Field(10.0, ge=1, description="no weight is more; 1: all weigh the same")
    rank: int = Field(16, ge=1, description="numbers of the selection model's vectors")

    @property
    def reach(self) -> int:
        return self.skip + self.count

    def build(self, width: int, exposure_IF: Tensor) -> "Selection":
        return Selection(self, width, exposure_IF)

    def weight(self, negative_NK: Tensor) -> Tensor:
        """Of pairs with negatives that the other model scores so; detached. -inf gives 1."""
        most = math.log(self.clip - 1) if self.clip > 1 else -math.inf
        return 1 + (negative_NK.detach().float() / self.temperature).clamp(max=most).exp()


class Selection(nn.Module):
    """Scores how likely an item is noticed: by its visibility alone, and by visibility and content for this very user."""

    freezes_items = False

    def __init__(self, spec: Coupled, width: int, exposure_IF: Tensor):
        super().__init__()
        self.spec = spec
        self.register_buffer("exposure_IF", exposure_IF.float(), persistent=False)
        features = exposure_IF.shape[1]
        self.user = nn.Linear(width, spec.rank, bias=False)
        self.item = nn.Linear(width + features, spec.rank, bias=False)
        self.visible = nn.Sequential(
            nn.Linear(features, spec.rank), nn.ReLU(), nn.Linear(spec.rank, 1, bias=False)
        )  # no bias at the end: pairs could not tell it

    def forward(self, standing: Standing) -> Against:
        """The row's hardest with their weights, and the selection model's own loss, weighed by the relevance model."""
        chosen = standing.hardest(self.spec.count, self.spec.skip)
        negative_NK, place_NK = standing.scores(chosen), standing.place_S[chosen.place_NK]
        with torch.autocast(standing.user_ND.device.type, enabled=False):
            noticed_NK, noticed_N = self._scores(standing, place_NK)
            noticed_NK = noticed_NK.masked_fill(~chosen.exists_NK, -torch.inf)
            pair_NK = functional.softplus(noticed_NK - noticed_N[:, None])
            number_N = chosen.exists_NK.sum(1).clamp(min=1)
            own_N = (self.spec.weight(negative_NK) * pair_NK).sum(1) / number_N
        weight_NK = self.spec.weight(noticed_NK)
        terms = above(standing, negative_NK) | _spread(weight_NK[chosen.exists_NK])
        return Against(negative_NK, standing.log_expected_S[chosen.place_NK], weight_NK, own_N, terms)

    def _scores(self, standing: Standing, place_NK: Tensor) -> tuple[Tensor, Tensor]:
        """Of the negatives and of the targets."""
        user_ND, item_CD = standing.user_ND.detach().float(), standing.item_CD.detach().float()
        seen_CF = self.exposure_IF[standing.item_C]
        user_NR, item_CR = self.user(user_ND), self.item(torch.cat([item_CD, seen_CF], dim=1))
        visible_C = self.visible(seen_CF).squeeze(1)
        positive_N = (user_NR * item_CR[standing.place_N]).sum(1) + visible_C[standing.place_N]
        return pair_scores(user_NR, item_CR, place_NK) + visible_C[place_NK], positive_N


def _spread(weight_X: Tensor) -> dict[str, Tensor]:
    number = max(1, len(weight_X))
    effective = weight_X.sum() ** 2 / (weight_X**2).sum().clamp(min=1e-12) / number
    return {"hard_weight": weight_X.sum() / number, "hard_effective_share": effective}
