"""Policy gradient against what greedy decoding earns. Shapes: B = prompts, G = candidates, T = tokens of a candidate."""

from typing import ClassVar, Literal

from pydantic import Field

from recsys.policy.group import Group, Loss, Objective, Proposals
from recsys.policy.measures import constant, mean_of, observed


class ReMax(Objective):
    """Raise a drawn item by as much as its reward is above that of the most probable item, which needs no critic.

    ReMax, Li et al. 2024, https://arxiv.org/abs/2310.10505. The first candidate is the most probable item, the others are
    draws of the policy. Loss per token: -(clip(R - R of the first) + beta (q - p)) log-probability, p and q being the token's
    log-probabilities under policy and parent as constants; mean over tokens, then over the draws. Take a reward that grades:
    with one of 0 and 1 most draws earn what the most probable item earns, and only the divergence acts.
    Differs from the paper: any number of draws; they are drawn from the whole distribution, not from its upper 90 %.
    """

    kind: Literal["remax"] = "remax"
    proposals: ClassVar[tuple[Proposals, ...]] = ("greedy_and_sample",)
    beta: float = Field(0.0, ge=0, description="weight of the divergence from the parent, per token")
    clip: float = Field(5.0, gt=0, description="no reward counts as further than this from the most probable item's")

    def __call__(self, group: Group) -> Loss:
        reward_BG, drawn_BG = group.reward_BG.detach(), group.exists_BG.clone()
        drawn_BG[:, 0] = False
        log_prob_BGT, parent_BGT = group.log_prob_BGT, group.parent_BGT.detach()
        advantage_BG = (reward_BG - reward_BG[:, :1]).clamp(-self.clip, self.clip)
        return_BGT = advantage_BG[..., None] + self.beta * (parent_BGT - log_prob_BGT.detach())
        loss_B = mean_of(-(return_BGT * log_prob_BGT).mean(2), drawn_BG)
        return Loss(loss_B, observed(group, constant(reward_BG, group.exists_BG)))
