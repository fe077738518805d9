"""Which wrong candidates are the worst? Shapes: B = prompts, G = candidates."""

from typing import ClassVar, Literal

from torch import Tensor

from recsys.policy.rewards.reward import Proposal, RewardSpec


class Rank(RewardSpec):
    """Where the logged item is among the candidates, any other costs the more the higher it stands; it is 0 itself.

    The auxiliary ranking reward of ReRe, 2025, https://arxiv.org/abs/2510.12211: -(1 / log2(place + 1)) over the sum of
    1 / log2(j + 1) for all places j. Without the logged item all are 0. Made to be added to `hit`.
    """

    kind: Literal["rank"] = "rank"
    ordered: ClassVar[bool] = True

    def __call__(self, proposal: Proposal) -> Tensor:
        discount_BG = proposal.exists_BG / (proposal.place_BG + 1.0).log2()
        share_BG = discount_BG / discount_BG.sum(1, keepdim=True).clamp(min=1)  # the first place alone is 1
        return -share_BG * ~proposal.hit_BG * proposal.hit_BG.any(1, keepdim=True)
