"""How high does the logged item stand? Shapes: B = prompts, G = candidates."""

from typing import ClassVar, Literal

from torch import Tensor

from recsys.policy.rewards.reward import Proposal, RewardSpec


class NDCG(RewardSpec):
    """1 / log2(1 + place) for the logged item, which is the NDCG of the candidates as a list, and 0 for any other.

    Järvelin and Kekäläinen 2002, https://doi.org/10.1145/582415.582418. A hit at the end of the beam earns less than one at
    its top, where there is least to learn: with an objective that standardises rewards in the group, the factor cancels.
    """

    kind: Literal["ndcg"] = "ndcg"
    ordered: ClassVar[bool] = True

    def __call__(self, proposal: Proposal) -> Tensor:
        return proposal.hit_BG / (proposal.place_BG + 1.0).log2()
