"""The history as each candidate sees it.

Shapes: B = examples or requests, C = candidates, L = history, D = width, H = hidden.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.ranker_inputs import masked_softmax
from recsys.spec import Spec


class TargetAttention(Spec):
    """Deep interest network: a small network weighs each event of the history against the candidate. Zhou et al. 2018,
    https://arxiv.org/abs/1706.06978.

    The weights come from [event, item, event - item, event * item] and, as in the paper, do not sum to one unless `normalised`,
    so that many similar events say more than few. Differs from the paper: PReLU, its other activation, in place of Dice, whose
    batch statistics would mix rows.
    """

    kind: Literal["target_attention"] = "target_attention"
    hidden: int = Field(32, ge=1, description="width of the network that gives the weights")
    normalised: bool = Field(False, description="weights by a softmax over the history")
    reads_sequence: ClassVar[bool] = True

    def build(self, dim: int) -> nn.Module:
        return _TargetAttention(self, dim)


class _TargetAttention(nn.Module):
    def __init__(self, spec: TargetAttention, dim: int):
        super().__init__()
        self.normalised = spec.normalised
        self.compare = nn.Linear(4 * dim, spec.hidden)
        self.activation = nn.PReLU()
        self.weigh = nn.Linear(spec.hidden, 1)

    def forward(self, item_BCD: Tensor, history_BLD: Tensor, inside_BL: Tensor) -> Tensor:
        """Return history_BCD; zeros for an empty history."""
        hidden_BCLH = self.activation(self._compare(item_BCD, history_BLD))
        score_BCL, inside_B1L = self.weigh(hidden_BCLH).squeeze(-1), inside_BL[:, None]
        weight_BCL = masked_softmax(score_BCL, inside_B1L) if self.normalised else score_BCL.masked_fill(~inside_B1L, 0.0)
        return torch.matmul(weight_BCL, history_BLD)

    def _compare(self, item_BCD: Tensor, history_BLD: Tensor) -> Tensor:
        """The layer over [event, item, event - item, event * item]: only the product needs work for every pair of an event and
        a candidate, the rest is linear in one of the two."""
        event_HD, item_HD, difference_HD, product_HD = self.compare.weight.chunk(4, dim=1)
        event_BLH = history_BLD @ (event_HD + difference_HD).T
        item_BCH = item_BCD @ (item_HD - difference_HD).T + self.compare.bias
        product_BCLD = item_BCD[:, :, None] * history_BLD[:, None]
        return product_BCLD @ product_HD.T + event_BLH[:, None] + item_BCH[:, :, None]
