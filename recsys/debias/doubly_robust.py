"""Doubly robust joint learning. Shapes: X = training examples, B = examples, P = pairs drawn evenly, T = tasks, V = width."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from recsys.debias.estimate import Estimate, Rows, clipped_share, effective_share
from recsys.debias.popularity import Popularity
from recsys.debias.with_pairs import WithPairs


class DoublyRobust(WithPairs):
    """Impute the label of every pair, and mend the imputed loss by the rows of the log: right where propensities or imputed
    labels are.

    Loss over all pairs = mean over the pairs of ehat + mean over the rows of w (e - ehat), where ehat is the loss with the
    imputed label. DR-JL, Wang et al. 2019, https://proceedings.mlr.press/v97/wang19n.html. Differs from the paper: labels are
    classes; pairs are users and contexts of the batch with random items; weights are normalised over the training rows, as
    SNIPS's are; `imputation` takes a share of the control variate, which is unbiased at any share; the net reads the ranker's
    vectors, and has no tables of its own.
    """

    kind: Literal["doubly_robust"] = "doubly_robust"
    imputation: float = Field(1.0, ge=0, le=1, description="how far imputed labels count; 0: not at all, which is SNIPS")
    hidden: int = Field(32, ge=1, description="width of the net that imputes labels")

    def build(self, width: int, tasks: int) -> nn.Module:
        return _DoublyRobust(self.imputation, width, tasks, self.hidden)

    @classmethod
    def neutral(cls) -> "DoublyRobust":
        return cls(propensity=Popularity(exponent=0), imputation=0)


class _DoublyRobust(nn.Module):
    """`imputer` answers with the logit of the imputed label."""

    def __init__(self, share: float, width: int, tasks: int, hidden: int):
        super().__init__()
        self.share = share
        self.imputer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, tasks))

    def forward(self, rows: Rows) -> Estimate:
        assert rows.pairs is not None, "doubly robust reads pairs"
        weight_BT = rows.inverse_B[:, None].expand_as(rows.loss_BT)
        exists_BT = ~torch.isnan(rows.label_BT)
        imputed_BT = self.imputer(rows.vector_BV).sigmoid()
        with torch.no_grad():
            imputed_PT = self.imputer(rows.pairs.vector_PV).sigmoid()
        terms = {"effective_share": effective_share(rows.inverse_B), "clipped_share": clipped_share(rows)}
        return Estimate(
            loss_BT=rows.loss_BT - self.share * exists_BT * loss(rows.logit_BT, imputed_BT.detach()),
            weight_BT=weight_BT,
            loss_PT=self.share * loss(rows.pairs.logit_PT, imputed_PT),
            own=imputation_loss(rows.loss_BT.detach(), loss(rows.logit_BT.detach(), imputed_BT), weight_BT * exists_BT),
            terms=terms,
        )


def loss(logit: Tensor, chance: Tensor) -> Tensor:
    """Cross-entropy with a label that is a probability."""
    return softplus(logit) - chance * logit


def imputation_loss(loss_BT: Tensor, imputed_loss_BT: Tensor, weight_BT: Tensor) -> Tensor:
    """Sum over the tasks of the rows' mean weighted squared error."""
    return (weight_BT * (loss_BT - imputed_loss_BT) ** 2).mean(0).sum()
