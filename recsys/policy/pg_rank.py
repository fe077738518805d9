"""Policy gradient of a ranking metric. Shapes: N = drawn rankings, B = prompts, G = candidates."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from recsys.policy.group import Group, Loss, Objective, Proposals
from recsys.policy.measures import among, constant, item_log_prob, observed

FAR = -1e9  # a score without chance; finite, since -inf less itself is no number


class PGRank(Objective):
    """Draw rankings of the candidates from their scores, and make those more probable that have a higher NDCG than the others.

    Neural PG-RANK, Gao et al. 2023, https://arxiv.org/abs/2310.04407: rankings are Plackett-Luce over the log-probabilities
    (drawn by Gumbel noise), the baseline of each is the mean of the others. Rewards are the gains; where one is negative, all
    of the prompt are raised until the lowest is 0, since an ideal of 0 or less normalises nothing. Only the places that the
    metric counts are in the loss, which takes variance and no bias.
    Differs from the paper: candidates are the policy's own, the logged item among them, and gains are the rewards themselves.
    """

    kind: Literal["pg_rank"] = "pg_rank"
    proposals: ClassVar[tuple[Proposals, ...]] = ("beam",)
    needs_target: ClassVar[bool] = True
    rankings: int = Field(16, ge=2, le=256, description="drawn for each prompt")
    cut: int = Field(10, ge=1, description="places that the NDCG counts")
    temperature: float = Field(1.0, gt=0, description="what log-probabilities are divided by; larger: more varied rankings")

    def __call__(self, group: Group) -> Loss:
        exists_BG, reward_BG = group.exists_BG, group.reward_BG.detach()
        score_BG = torch.where(exists_BG, item_log_prob(group.log_prob_BGT) / self.temperature, FAR)
        order_NBG = self._draw(score_BG.detach(), group.seed)
        metric_NB = ndcg(reward_BG, exists_BG, order_NBG, self.cut)
        others_NB = (metric_NB.sum(0) - metric_NB) / (self.rankings - 1)
        skipped_B = constant(reward_BG, exists_BG)
        better_NB = (metric_NB - others_NB).masked_fill(skipped_B, 0.0)
        loss_B = -(better_NB * log_chance(score_BG, exists_BG, order_NBG, self.cut)).mean(0)
        terms = {
            **observed(group, skipped_B),
            "sampled_ndcg": among(metric_NB.mean(0), ~skipped_B),
            "distinct_rankings": among(_distinct(order_NBG[..., : self.cut]), ~skipped_B),
        }
        return Loss(loss_B, terms)

    def _draw(self, score_BG: Tensor, seed: int) -> Tensor:
        """order_NBG, columns from first place to last; those that do not exist come last."""
        uniform_NBG = torch.rand((self.rankings, *score_BG.shape), generator=Generator().manual_seed(seed), dtype=torch.float64)
        gumbel_NBG = -(-uniform_NBG.clamp(min=1e-300).log()).log()
        return (score_BG + gumbel_NBG.to(score_BG)).argsort(dim=2, descending=True, stable=True)


def log_chance(score_BG: Tensor, exists_BG: Tensor, order_NBG: Tensor, cut: int) -> Tensor:
    """log_chance_NB of the first `cut` places: at each, the score less the log-sum-exp of those not yet placed."""
    placed_NBG = score_BG.expand_as(order_NBG).gather(2, order_NBG)
    left_NBG = placed_NBG.flip(2).logcumsumexp(2).flip(2)
    step_NBG = (placed_NBG - left_NBG) * exists_BG.expand_as(order_NBG).gather(2, order_NBG)
    return step_NBG[..., :cut].sum(2)


def ndcg(reward_BG: Tensor, exists_BG: Tensor, order_NBG: Tensor, cut: int) -> Tensor:
    """ndcg_NB of rankings, whose gains are the rewards; 0 where all gains are."""
    lowest_B = reward_BG.masked_fill(~exists_BG, torch.inf).amin(1).clamp(max=0)
    gain_BG = torch.where(exists_BG, reward_BG - lowest_B[:, None], 0.0)
    discount_G = 1 / torch.arange(2, cut + 2, device=reward_BG.device, dtype=reward_BG.dtype).log2()
    discount_G = discount_G[: reward_BG.shape[1]]
    ideal_B = (gain_BG.sort(1, descending=True).values[:, : len(discount_G)] * discount_G).sum(1)
    gained_NBG = gain_BG.expand_as(order_NBG).gather(2, order_NBG)[..., : len(discount_G)]
    return torch.where(ideal_B > 0, (gained_NBG * discount_G).sum(2) / ideal_B, 0.0)


def _distinct(order_NBG: Tensor) -> Tensor:
    """share_B of the rankings that no earlier one equals: near 1 / N, they teach nothing."""
    same_NNB = (order_NBG[:, None] == order_NBG[None]).all(3)
    repeated_NB = same_NNB.permute(2, 0, 1).tril(-1).any(2).T
    return 1 - repeated_NB.to(torch.float32).mean(0)
