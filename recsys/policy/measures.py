"""What several objectives count in the same way. Shapes: B = prompts, G = candidates, T = tokens of a candidate."""

import torch
from torch import Tensor

from recsys.policy.group import Group

WIDEST = 20.0  # of the exponent of a logged divergence: one runaway candidate should not hide all others


def item_log_prob(log_prob_BGT: Tensor) -> Tensor:
    """log_prob_BG of whole items: sums, not means, of their tokens."""
    return log_prob_BGT.sum(2)


def mean_of(value_BG: Tensor, exists_BG: Tensor) -> Tensor:
    """mean_B over the candidates that exist; 0 where none does."""
    return (value_BG * exists_BG).sum(1) / exists_BG.sum(1).clamp(min=1)


def at_column(value_BG: Tensor, column_B: Tensor) -> Tensor:
    """value_B of one candidate of each prompt; that of the first where `column_B` is negative, which callers mask."""
    return value_BG.gather(1, column_B.clamp(min=0)[:, None])[:, 0]


def divergence(log_prob: Tensor, parent: Tensor) -> Tensor:
    """exp(q - p) - (q - p) - 1 of log-probabilities p and the parent's q: at least 0, and over samples of the policy an
    unbiased estimate of its KL divergence to the parent (the estimator k3 of Schulman 2020, http://joschu.net/blog/kl-approx.html).
    """
    gap = parent.detach() - log_prob
    return torch.expm1(gap) - gap


def constant(reward_BG: Tensor, exists_BG: Tensor) -> Tensor:
    """constant_B: whether all candidates that exist have one reward, so that it tells none from another."""
    highest_B = reward_BG.masked_fill(~exists_BG, -torch.inf).amax(1)
    lowest_B = reward_BG.masked_fill(~exists_BG, torch.inf).amin(1)
    return highest_B <= lowest_B


def advantage(reward_BG: Tensor, exists_BG: Tensor, *, standardise: bool, epsilon: float) -> Tensor:
    """advantage_BG: rewards less their mean, over their sample standard deviation; 0 where they are constant.

    Rounding would leave a constant reward a tiny deviation, of which the standardised advantage is not tiny.
    """
    centred_BG = (reward_BG - mean_of(reward_BG, exists_BG)[:, None]) * exists_BG
    if standardise:
        variance_B = centred_BG.square().sum(1) / (exists_BG.sum(1) - 1).clamp(min=1)
        centred_BG = centred_BG / (variance_B.sqrt() + epsilon)[:, None]
    return centred_BG.masked_fill(constant(reward_BG, exists_BG)[:, None], 0.0)


def observed(group: Group, skipped_B: Tensor) -> dict[str, Tensor]:
    """The terms that every objective logs: mean reward, prompts whose target is a candidate, prompts that teach nothing, and
    the divergence from the parent, as `divergence` estimates it from the candidates."""
    log_prob_BGT = group.log_prob_BGT.detach()
    gap_BG = divergence(log_prob_BGT, group.parent_BGT.clamp(max=log_prob_BGT + WIDEST)).sum(2)
    terms_B = {
        "reward": mean_of(group.reward_BG, group.exists_BG),
        "hit_share": group.target_B >= 0,
        "skipped_share": skipped_B,
        "kl_to_parent": mean_of(gap_BG, group.exists_BG),
    }
    if group.item_BG is not None:
        terms_B["distinct_share"] = mean_of(~_repeated(group.item_BG, group.exists_BG), group.exists_BG)
    return {name: term_B.detach().to(log_prob_BGT.dtype).mean() for name, term_B in terms_B.items()}


def among(value_B: Tensor, counted_B: Tensor) -> Tensor:
    """The mean over the prompts that count, without gradient; 0 where none does."""
    return (value_B.detach() * counted_B).sum() / counted_B.sum().clamp(min=1)


def _repeated(item_BG: Tensor, exists_BG: Tensor) -> Tensor:
    """Whether an earlier candidate is the same item."""
    same_BGG = (item_BG[:, :, None] == item_BG[:, None]) & exists_BG[:, None]
    return same_BGG.tril(-1).any(2)
