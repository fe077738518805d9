"""The logged item above all others at once. Shapes: B = prompts, G = candidates."""

from typing import Literal

import torch

from recsys.policy.group import Group, Loss
from recsys.policy.measures import at_column
from recsys.policy.preference import Chosen, preferred, rejected


class SDPO(Chosen):
    """Softmax direct preference optimisation: log(1 + sum over the others of exp(their h - h of the logged item)).

    S-DPO, Chen et al. 2024, https://arxiv.org/abs/2406.09215; h = beta (log p - log p of parent). With one other it is `dpo`;
    with several, the hardest of them count most.
    Differs from the paper: the others are candidates of the policy, where the paper draws items at random.
    """

    kind: Literal["s_dpo"] = "s_dpo"

    def __call__(self, group: Group) -> Loss:
        gained_BG, rejected_BG = self.gained(group), rejected(group)
        counted_B = rejected_BG.any(1)
        above_BG = gained_BG - at_column(gained_BG, group.target_B)[:, None]
        above_BG = torch.where(rejected_BG, above_BG, -torch.inf)
        zero_B1 = torch.zeros_like(above_BG[:, :1])
        loss_B = self.anchored(torch.cat([zero_B1, above_BG], 1).logsumexp(1), group, counted_B)
        margin_B = torch.where(counted_B, -above_BG.detach().amax(1), 0.0)  # over the hardest
        return Loss(loss_B, preferred(group, margin_B, counted_B))
