"""Is it the item that the log has? Shapes: B = prompts, G = candidates."""

from typing import Literal

from torch import Tensor

from recsys.policy.rewards.reward import Proposal, RewardSpec


class Hit(RewardSpec):
    """1 for the logged item, 0 for any other: the rule of ReRe, 2025, https://arxiv.org/abs/2510.12211."""

    kind: Literal["hit"] = "hit"

    def __call__(self, proposal: Proposal) -> Tensor:
        return proposal.hit_BG.float()
