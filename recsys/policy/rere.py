"""Group-relative policy optimisation of a recommender. Shapes: B = prompts, G = candidates, T = tokens of a candidate."""

from typing import ClassVar, Literal

from pydantic import Field

from recsys.policy.group import Group, Loss, Objective, Proposals
from recsys.policy.measures import advantage, constant, divergence, mean_of, observed

EPSILON = 1e-4  # beside the standard deviation, as in the released code


class ReRe(Objective):
    """Raise the candidates that are better than their group, lower the others, and stay near the parent.

    Reinforced Preference Optimization for Recommendation, 2025, https://arxiv.org/abs/2510.12211, which is GRPO, Shao et al.
    2024, https://arxiv.org/abs/2402.03300, whose samples are the beam: all exist, all differ, and those that are no hit are
    hard negatives. The rewards of the paper are `hit` and `rank`. A beam is no sample of the policy: this is not the gradient
    of the expected reward, it pushes down what the policy wrongly prefers. With `sample` it is (for `scale: none`, but for a
    factor of 1 - 1/G).

    Loss per token: beta k3 - exp(p - sg(p)) A, of the log-probability p over the whole vocabulary; A are rewards less the
    group's mean, over its sample standard deviation + 1e-4. Mean over tokens, then over the candidates. As in the released
    code, and unlike the paper, nothing is clipped: each proposal is learned from once, where the ratio is 1.
    Differs from the paper: one prompt counts as much as another, however many candidates it has; candidates of a prompt whose
    rewards are all equal are counted as skipped (only the divergence acts there); the parent is never moved.
    """

    kind: Literal["rere"] = "rere"
    proposals: ClassVar[tuple[Proposals, ...]] = ("beam", "sample")
    beta: float = Field(1e-3, ge=0, description="weight of the divergence from the parent")
    scale: Literal["std", "none"] = Field(
        "std",
        description="divide by the group's standard deviation, so that every prompt with a hit counts alike (GRPO), or not",
    )

    def __call__(self, group: Group) -> Loss:
        reward_BG, exists_BG = group.reward_BG.detach(), group.exists_BG
        advantage_BG = advantage(reward_BG, exists_BG, standardise=self.scale == "std", epsilon=EPSILON)
        ratio_BGT = (group.log_prob_BGT - group.log_prob_BGT.detach()).exp()
        token_BGT = self.beta * divergence(group.log_prob_BGT, group.parent_BGT) - ratio_BGT * advantage_BG[..., None]
        terms = observed(group, constant(reward_BG, exists_BG))
        return Loss(mean_of(token_BGT.mean(2), exists_BG), terms)
