"""Every better candidate above every worse one. Shapes: B = prompts, G = candidates."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recsys.policy.group import Group, Loss, Proposals
from recsys.policy.measures import constant
from recsys.policy.preference import Preference, preferred


class LiPO(Preference):
    """Listwise preference optimisation, LiPO-lambda: the sum over pairs of log(1 + exp(h of the worse - h of the better)), each
    times what a swap of the two would change in the list's DCG.

    Liu et al. 2024, https://arxiv.org/abs/2402.01878; h = beta (log p - log p of parent). The weight of a pair is
    |2^R - 2^R'| |1 / log2(1 + place) - 1 / log2(1 + place')| with rewards R and places by h as it is now, a constant of the
    step; where h is equal, as at the start, the candidates' order decides.
    Differs from the paper: the list is made of the policy's candidates with the rewards configured here.
    """

    kind: Literal["lipo"] = "lipo"
    proposals: ClassVar[tuple[Proposals, ...]] = ("beam", "sample")
    reads_reward: ClassVar[bool] = True
    beta: float = Field(
        0.05, gt=0, description="how fast a change against the parent counts; larger: stays nearer to the parent"
    )

    def __call__(self, group: Group) -> Loss:
        gained_BG, exists_BG, reward_BG = self.gained(group), group.exists_BG, group.reward_BG.detach()
        ahead_BGG = gained_BG[:, :, None] - gained_BG[:, None]
        pair_BGG = (reward_BG[:, :, None] > reward_BG[:, None]) & exists_BG[:, :, None] & exists_BG[:, None]
        weight_BGG = torch.where(pair_BGG, swap(gained_BG.detach(), reward_BG, exists_BG), 0.0)
        loss_B = (weight_BGG * functional.softplus(-ahead_BGG)).sum((1, 2))
        counted_B = ~constant(reward_BG, exists_BG)
        return Loss(loss_B, preferred(group, _margin(ahead_BGG.detach(), pair_BGG), counted_B))


def swap(gained_BG: Tensor, reward_BG: Tensor, exists_BG: Tensor) -> Tensor:
    """change_BGG of the DCG if two candidates changed places."""
    order_BG = gained_BG.masked_fill(~exists_BG, -torch.inf).argsort(dim=1, descending=True, stable=True)
    place_G = torch.arange(1, order_BG.shape[1] + 1, device=order_BG.device)
    place_BG = torch.empty_like(order_BG).scatter_(1, order_BG, place_G.expand_as(order_BG))
    discount_BG, gain_BG = 1 / (place_BG + 1.0).log2(), torch.exp2(reward_BG)
    discount_BG = discount_BG.to(gain_BG)
    return (gain_BG[:, :, None] - gain_BG[:, None]).abs() * (discount_BG[:, :, None] - discount_BG[:, None]).abs()


def _margin(ahead_BGG: Tensor, pair_BGG: Tensor) -> Tensor:
    """margin_B, the mean over the pairs."""
    return (ahead_BGG * pair_BGG).sum((1, 2)) / pair_BGG.sum((1, 2)).clamp(min=1)
