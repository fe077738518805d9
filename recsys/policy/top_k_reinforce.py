"""Policy gradient from another policy's log, for lists of K items. Shapes: B = prompts, G = candidates."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.policy.group import Group, Loss, Objective, Proposals
from recsys.policy.logged import effective_share, require_propensities
from recsys.policy.measures import among, at_column, item_log_prob, observed


class TopKReinforce(Objective):
    """REINFORCE with top-K off-policy correction: loss = -w lambda R log p of the logged item, w and lambda being constants.

    Chen et al. 2019, https://arxiv.org/abs/1812.02353. w = min(p / chance that the logging policy shows the item, `clip`), and
    lambda = K (1 - p)^(K - 1): an item that is in the list of K anyway needs no more. `behaviour` says what that chance is:
    `logged`, the log's propensities, which have to be those of single items and not of being anywhere in a list; `parent`, the
    parent's probability, where the parent was trained on the log and so imitates the policy behind it; or `none`, w = 1.
    Rewards are at least 0 in the paper; a negative one pushes the item down without bound.
    Differs from the paper: the chance under the logging policy is not learned beside the policy by a second softmax, it is
    given; the reward is the event's own, not a discounted sum of later ones.
    """

    kind: Literal["top_k_reinforce"] = "top_k_reinforce"
    logged: ClassVar[bool] = True
    proposals: ClassVar[tuple[Proposals, ...]] = ("none",)
    reads_unrewarded: ClassVar[bool] = False
    k: int = Field(16, ge=1, description="items of a list; 1: no correction for lists")
    clip: float = Field(20.0, ge=1, description="no weight of a row is more")
    behaviour: Literal["logged", "parent", "none"] = Field(
        "logged", description="the logging policy's chance of an item: the log's, the parent's, or not corrected for"
    )

    def __call__(self, group: Group) -> Loss:
        log_prob_B = at_column(item_log_prob(group.log_prob_BGT), group.target_B)
        reward_B = at_column(group.reward_BG.detach(), group.target_B)
        counted_B = (group.target_B >= 0) & (reward_B != 0)
        log_ratio_B = self._log_ratio(group, log_prob_B.detach())
        weight_B = log_ratio_B.clamp(max=math.log(self.clip)).exp() * self._list_factor(log_prob_B.detach())
        loss_B = torch.where(counted_B, -weight_B * reward_B * log_prob_B, 0.0)
        terms = {
            **observed(group, ~counted_B),
            "effective_share": effective_share(weight_B, counted_B),
            "clipped_share": among(log_ratio_B > math.log(self.clip), counted_B),
            "largest_ratio": torch.where(counted_B, log_ratio_B, -torch.inf).max().clamp(max=60).exp(),  # before the clip
        }
        return Loss(loss_B, terms)

    def _log_ratio(self, group: Group, log_prob_B: Tensor) -> Tensor:
        match self.behaviour:
            case "logged":
                return log_prob_B - require_propensities(group).to(log_prob_B.dtype).log()
            case "parent":
                return log_prob_B - at_column(item_log_prob(group.parent_BGT.detach()), group.target_B)
            case "none":
                return torch.zeros_like(log_prob_B)

    def _list_factor(self, log_prob_B: Tensor) -> Tensor:
        """The derivative by p of the chance 1 - (1 - p)^K that an item is among K draws."""
        return self.k * (-torch.expm1(log_prob_B.clamp(max=0))) ** (self.k - 1)
