"""Propensity weights corrected until the weighted log looks like all pairs to a kernel.

Shapes: B = rows of the log, P = pairs drawn evenly, J = centres, T = tasks, V = width of a row's vectors side by side,
X = training examples.
"""

import math
from dataclasses import replace
from typing import Literal, assert_never

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.debias.doubly_robust import DoublyRobust
from recsys.debias.estimate import Estimate, Rows, clipped_share, effective_share
from recsys.debias.ips import InverseWeights
from recsys.debias.popularity import Popularity
from recsys.debias.with_pairs import WithPairs

RIDGE = 1e-2  # of the regression that finds adaptive centres; their order hardly depends on it
NEAR = 1e-3  # spread of the network's last weights at the start, so that the factor begins near 1


class CausalBalancing(WithPairs):
    """Learn a factor on each row's inverse propensity such that weighted rows and all pairs have the same mean of functions.

    The functions are kernels around some of the pairs drawn evenly, the centres. `random`: pairs as they were drawn.
    `adaptive`: those that matter most where the present error of the model is written as a sum of kernels around the pairs
    (kernel ridge regression). `worst_case`: those whose mean differs most. The own loss, with w the weights over their mean, is
    mean(w log w) + strength * mean over the centres of max(0, |gap of w| - slack), for the flattest weights that balance, and
    (mean weight - 1)^2.

    Li et al. 2024, https://arxiv.org/abs/2404.19596. Differs from the paper and its released code:
    - a hinge for every centre, where the code has one for their sum, in which opposite gaps cancel;
    - means, not sums, of log, pairs and hinges, so that neither batch size nor number of centres is part of `strength`;
    - the weights are divided by the batch's mean here, in place of the constraint that they sum to one, and never in the
      model's loss, where only their mean over all batches is drawn to 1;
    - adaptive and worst-case centres are found in closed form in each step, where the code moves coefficients that belong to a
      place in a pool that is shuffled anew; a centre is left out of its own mean over the pairs;
    - the vectors are the model's own, detached, not those of a model trained before, so distances are relative to their mean;
    - the factor is a small network of those vectors that begins near 1, where the code factorises users and items;
    - `imputation` above 0 is the doubly robust form, with the imputed loss of `doubly_robust`.
    """

    kind: Literal["causal_balancing"] = "causal_balancing"
    kernel: Literal["gaussian", "exponential"] = "gaussian"
    sharpness: float = Field(1.0, gt=0, description="a kernel at the mean distance has fallen to exp(-sharpness)")
    centres: Literal["random", "adaptive", "worst_case"] = Field("adaptive", description="how they are chosen")
    num_centres: int = Field(16, ge=1)
    pool: int = Field(256, ge=1, description="pairs of a batch among which the centres are chosen")
    strength: float = Field(20.0, ge=0, description="of balance against flatness")
    slack: float = Field(0.01, ge=0, description="a difference of means that is allowed")
    limit: float = Field(10.0, ge=1, description="the factor on the inverse propensity lies between 0 and this")
    hidden: int = Field(32, ge=1, description="units of the network behind the factor")
    imputation: float = Field(0.0, ge=0, le=1, description="how far imputed labels count; 0: not at all, 1: doubly robust")

    def build(self, width: int, tasks: int) -> nn.Module:
        return BalancedWeights(self, width, tasks)

    @classmethod
    def neutral(cls) -> "CausalBalancing":
        return cls(propensity=Popularity(exponent=0), limit=1)


class BalancedWeights(nn.Module):
    """The network behind the factor, which learns from its own loss, and what the weights are used in."""

    def __init__(self, spec: CausalBalancing, width: int, tasks: int):
        super().__init__()
        self.spec = spec
        self.network = nn.Sequential(nn.Linear(width, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, 1))
        nn.init.normal_(self.network[-1].weight, std=NEAR)
        nn.init.zeros_(self.network[-1].bias)
        robust = DoublyRobust(imputation=spec.imputation, hidden=spec.hidden)
        self.estimate = robust.build(width, tasks) if spec.imputation else InverseWeights()

    def forward(self, rows: Rows) -> Estimate:
        assert rows.pairs is not None, "no pairs to balance with"
        factor_B = self.factor(rows.vector_BV.detach())
        tiny = torch.finfo(factor_B.dtype).tiny
        estimate: Estimate = self.estimate(replace(rows, propensity_B=rows.propensity_B / factor_B.detach().clamp(min=tiny)))
        weight_B = factor_B * rows.inverse_B
        gap_J = self.gaps(rows, weight_B / weight_B.mean(), estimate.loss_BT.detach().sum(1))
        own = self.own(weight_B, gap_J)
        terms = {
            "balance_gap": gap_J.detach().abs().mean(), "effective_share": effective_share(weight_B.detach()),
            "clipped_share": clipped_share(rows),
        }  # fmt: skip
        return replace(estimate, own=own if estimate.own is None else own + estimate.own, terms={**estimate.terms, **terms})

    def factor(self, vector_BV: Tensor) -> Tensor:
        """factor_B in (0, limit), about 1 before training; always 1 where the limit is."""
        start = -math.log(self.spec.limit - 1) if self.spec.limit > 1 else math.inf
        raw_B: Tensor = self.network(vector_BV).squeeze(-1).float()
        return self.spec.limit * torch.sigmoid(raw_B + start)

    def own(self, weight_B: Tensor, gap_J: Tensor) -> Tensor:
        mean = weight_B.mean()
        return entropy(weight_B / mean).mean() + self.spec.strength * hinges(gap_J, self.spec.slack).mean() + (mean - 1) ** 2

    def gaps(self, rows: Rows, weight_B: Tensor, error_B: Tensor) -> Tensor:
        """gap_J: each chosen function's mean over the pairs, less that over the weighted rows."""
        assert rows.pairs is not None
        row_BV, pair_PV = rows.vector_BV.detach().float(), rows.pairs.vector_PV.detach().float()
        with torch.no_grad():
            centre_JV = pair_PV[: self.spec.pool]
            kernel_JB, kernel_JP = kernels(centre_JV, row_BV, pair_PV, self.spec.kernel, self.spec.sharpness)
            of_itself_J = kernel_JP.diagonal()  # a centre is one of the pairs, which says nothing of the others
            all_J = (kernel_JP.sum(1) - of_itself_J) / max(1, len(pair_PV) - 1)
            chosen = self.chosen(kernel_JB, kernel_JP[:, : len(centre_JV)], all_J, weight_B, error_B)
        return all_J[chosen] - (kernel_JB[chosen] * weight_B).mean(1)

    def chosen(self, kernel_JB: Tensor, kernel_JJ: Tensor, all_J: Tensor, weight_B: Tensor, error_B: Tensor) -> Tensor:
        """The centres, as places in the pool."""
        count = min(self.spec.num_centres, len(all_J))
        match self.spec.centres:
            case "random":  # the items of pairs are drawn at random
                return torch.arange(count, device=all_J.device)
            case "adaptive":
                return coefficients(kernel_JB, kernel_JJ, weight_B, error_B).abs().topk(count).indices
            case "worst_case":
                return (all_J - (kernel_JB * weight_B).mean(1)).abs().topk(count).indices
            case other:
                assert_never(other)


def kernels(centre_JV: Tensor, row_BV: Tensor, pair_PV: Tensor, kind: str, sharpness: float) -> tuple[Tensor, Tensor]:
    """kernel_JB and kernel_JP: exp(-sharpness * d² / mean d²), or of d for the exponential; means are over the pairs."""
    power = 2 if kind == "gaussian" else 1
    distance_JB, distance_JP = torch.cdist(centre_JV, row_BV) ** power, torch.cdist(centre_JV, pair_PV) ** power
    unit = sharpness / distance_JP.mean().clamp(min=1e-12)
    return torch.exp(-unit * distance_JB), torch.exp(-unit * distance_JP)


def coefficients(kernel_JB: Tensor, kernel_JJ: Tensor, weight_B: Tensor, error_B: Tensor) -> Tensor:
    """eps_J of the weighted kernel ridge regression of the error, about its mean: error_b = sum_j eps_j K(x_b, c_j)."""
    share_B = weight_B / weight_B.sum().clamp(min=1e-12)
    around_B = error_B - (error_B * share_B).sum()
    left_JJ = kernel_JB * share_B @ kernel_JB.T + RIDGE * (kernel_JJ + torch.eye(len(kernel_JJ), device=kernel_JJ.device))
    return torch.linalg.solve(left_JJ, kernel_JB @ (share_B * around_B))


def entropy(weight_B: Tensor) -> Tensor:
    """w log w of each, 0 at 0."""
    return torch.special.xlogy(weight_B, weight_B)


def hinges(gap_J: Tensor, slack: float) -> Tensor:
    """What of each gap is not allowed."""
    return (gap_J.abs() - slack).clamp(min=0)
