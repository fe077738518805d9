"""The logged item above one other. Shapes: B = prompts, G = candidates."""

from typing import Literal

from torch.nn import functional

from recsys.policy.group import Group, Loss
from recsys.policy.measures import at_column
from recsys.policy.preference import Chosen, preferred, rejected


class DPO(Chosen):
    """Direct preference optimisation: -log sigmoid(h of the logged item - h of another), h = beta (log p - log p of parent).

    Rafailov et al. 2023, https://arxiv.org/abs/2305.18290. The other is the first candidate that is not the logged item: a
    draw of the policy with `sample`, its strongest wrong item with `beam`.
    Differs from the paper: no one has compared the two, the logged item counts as preferred; pairs are made anew in every step.
    """

    kind: Literal["dpo"] = "dpo"

    def __call__(self, group: Group) -> Loss:
        gained_BG, rejected_BG = self.gained(group), rejected(group)
        counted_B = rejected_BG.any(1)
        margin_B = at_column(gained_BG, group.target_B) - at_column(gained_BG, rejected_BG.int().argmax(1))
        loss_B = self.anchored(functional.softplus(-margin_B), group, counted_B)
        return Loss(loss_B, preferred(group, margin_B, counted_B))
