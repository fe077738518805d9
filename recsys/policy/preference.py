"""What losses of preferences between candidates share. Shapes: B = prompts, G = candidates, T = tokens of a candidate."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from recsys.policy.group import Group, Objective, Proposals
from recsys.policy.measures import among, at_column, item_log_prob, observed


class Preference(Objective):
    """A loss of how much more probable than under the parent the candidates have become: h = beta (log p - log p of parent)."""

    proposals: ClassVar[tuple[Proposals, ...]] = ("sample", "beam")
    needs_target: ClassVar[bool] = True
    reads_reward: ClassVar[bool] = False
    beta: float = Field(
        0.1, gt=0, description="how fast a change against the parent counts; larger: stays nearer to the parent"
    )

    def gained(self, group: Group) -> Tensor:
        """h_BG."""
        return self.beta * (item_log_prob(group.log_prob_BGT) - item_log_prob(group.parent_BGT.detach()))


class Chosen(Preference):
    """One that sets the logged item against others."""

    likelihood: float = Field(
        0.0, ge=0, description="weight of the logged item's own -log p: the margin can grow while both sides fall"
    )

    def anchored(self, loss_B: Tensor, group: Group, counted_B: Tensor) -> Tensor:
        """With the likelihood term; 0 for prompts that do not count."""
        chosen_B = at_column(item_log_prob(group.log_prob_BGT), group.target_B)
        return torch.where(counted_B, loss_B - self.likelihood * chosen_B, 0.0)


def rejected(group: Group) -> Tensor:
    """rejected_BG: candidates that exist and are not the logged item; none where the logged item is no candidate."""
    column_G = torch.arange(group.exists_BG.shape[1], device=group.exists_BG.device)
    other_BG = column_G != group.target_B[:, None]
    if group.item_BG is not None:
        other_BG &= group.item_BG != at_column(group.item_BG, group.target_B)[:, None]
    return other_BG & group.exists_BG & (group.target_B >= 0)[:, None]


def preferred(group: Group, margin_B: Tensor, counted_B: Tensor) -> dict[str, Tensor]:
    """Terms: the chosen item's log-probability may fall while its margin over the others grows, so both are logged."""
    chosen_B = at_column(item_log_prob(group.log_prob_BGT), group.target_B)
    return {
        **observed(group, ~counted_B),
        "chosen_log_prob": among(chosen_B, counted_B & (group.target_B >= 0)),
        "margin": among(margin_B, counted_B),
        "preferred_share": among(margin_B > 0, counted_B),
    }
