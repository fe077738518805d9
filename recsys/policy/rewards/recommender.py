"""What does a recommender that does not learn think of it? Shapes: B = prompts, G = candidates."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.policy.measures import advantage
from recsys.policy.rewards.reward import Proposal, RewardSpec


class Recommender(RewardSpec):
    """The score that a fixed recommender, seen from outside, gives each candidate for the prompt.

    The loop of Rec-R1, Lin et al. 2025, https://arxiv.org/abs/2503.24289: a generator proposes, a recommender that is never
    trained judges, and the judgement is the reward. Differs from the paper: items are proposed and scored, where the paper's
    generator writes queries and the reward is the metric of the recommender's list.
    """

    kind: Literal["recommender"] = "recommender"
    of_logged: ClassVar[bool] = True
    asks_score: ClassVar[bool] = True
    normalise: bool = Field(
        True, description="scores less the prompt's mean, over their standard deviation, so that their scale does not matter"
    )

    def __call__(self, proposal: Proposal) -> Tensor:
        if proposal.score is None:
            raise ValueError("reward: recommender needs a trained model that scores the candidates, and there is none")
        with torch.no_grad():
            score_BG = torch.where(proposal.exists_BG, proposal.score(proposal.item_BG).float(), 0.0)
        if not bool(score_BG.isfinite().all()):
            raise ValueError(
                "reward: recommender gave a candidate a score that is no finite number; look at the model that scores"
            )
        if not self.normalise:
            return score_BG
        return advantage(score_BG, proposal.exists_BG, standardise=True, epsilon=1e-6)
