"""Policy gradient from logged actions that were better than expected. Shapes: B = prompts, T = tokens, D = width."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.policy.group import Group, Learned, Loss, Objective, Proposals
from recsys.policy.measures import among, at_column, observed


class ALoL(Objective):
    """Imitate logged actions whose reward is above what their prompt promises, by how much it is: loss = -A ratio log p.

    Advantage-leftover-lunch RL (A-LoL), Baheti et al. 2024, https://arxiv.org/abs/2305.14718. A = R - V(prompt); rows with A at
    or below 0 are left out. The ratio p / p of the parent is a constant within 1 - epsilon and 1 + epsilon, of the item, of
    each token, or 1 (the paper's A-LoL, A-LoL seq. and A-LoL ref. free). The parent stands for the policy behind the log.
    Differs from the paper: the head V (one hidden layer, from 0) learns beside the policy, from the same rows and from its
    state, which it does not shape, not beforehand from the parent's own proposals; before it has learned, A is the reward
    itself. Rows come as often as in the log, not in proportion to A.
    """

    kind: Literal["a_lol"] = "a_lol"
    logged: ClassVar[bool] = True
    proposals: ClassVar[tuple[Proposals, ...]] = ("none",)
    ratio: Literal["item", "token", "none"] = Field(
        "item", description="of what the ratio to the parent is taken; none: it is 1"
    )
    epsilon: float = Field(0.9, gt=0, lt=1, description="the ratio stays within 1 - epsilon and 1 + epsilon")
    hidden: int = Field(64, ge=1, le=4096, description="width of the layer of the net that expects rewards")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="of that net, AdamW")

    def build(self, width: int) -> "ValueOfPrompt":
        return ValueOfPrompt(self, width)


class ValueOfPrompt(Learned):
    """The objective with its net."""

    def __init__(self, spec: ALoL, width: int):
        super().__init__()
        self.spec, self.learning_rate = spec, spec.learning_rate
        self.hidden, self.output = nn.Linear(width, spec.hidden), nn.Linear(spec.hidden, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, group: Group) -> Loss:
        assert group.state_BD is not None
        known_B, reward_B = group.target_B >= 0, at_column(group.reward_BG.detach(), group.target_B)
        value_B = self.output(self.hidden(group.state_BD.detach().to(self.hidden.weight)).relu())[:, 0]
        better_B = torch.where(known_B, (reward_B - value_B.detach()).clamp(min=0), 0.0)
        error_B = torch.where(known_B, (value_B - reward_B).square(), 0.0)
        terms = {
            **observed(group, better_B == 0),
            "value": among(value_B, known_B),
            "value_error": among(error_B, known_B),
        }
        return Loss(better_B * self._imitation(group), terms, error_B.mean())

    def _imitation(self, group: Group) -> Tensor:
        """-log p of the logged item, each token (or the item) times its ratio to the parent."""
        row_B = torch.arange(len(group.target_B), device=group.target_B.device)
        log_prob_BT, parent_BT = (
            of_BGT[row_B, group.target_B.clamp(min=0)] for of_BGT in (group.log_prob_BGT, group.parent_BGT)
        )
        gap_BT = log_prob_BT.detach() - parent_BT.detach()
        match self.spec.ratio:
            case "item":
                gap_BT = gap_BT.sum(1, keepdim=True)
            case "none":
                gap_BT = torch.zeros_like(gap_BT)
            case "token":
                pass
        ratio_BT = gap_BT.exp().clamp(1 - self.spec.epsilon, 1 + self.spec.epsilon)
        return -(ratio_BT * log_prob_BT).sum(1)
