"""Several rewards as one. Shapes: B = prompts, G = candidates, R = rewards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.policy.rewards.reward import Proposal, RewardSpec


def reward_of_each(rewards: Sequence[RewardSpec], proposal: Proposal) -> Tensor:
    """reward_RBG, without their weights."""
    with torch.no_grad():
        return torch.stack([reward(proposal) for reward in rewards])


def total(rewards: Sequence[RewardSpec], reward_RBG: Tensor) -> Tensor:
    """reward_BG: the sum of rewards times weights."""
    weight_R = reward_RBG.new_tensor([reward.weight for reward in rewards])
    return (weight_R[:, None, None] * reward_RBG).sum(0)
