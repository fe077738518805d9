"""Several rewards, each held at the threshold where it is useful. Shapes: B = prompts, G = candidates, R = rewards."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.policy.group import Group
from recsys.policy.measures import advantage, item_log_prob, mean_of
from recsys.spec import Spec

FURTHEST = 3.0  # of a multiplier before it is squashed: beyond, it would hardly move any more
EPSILON = 1e-4


class Mixed(NamedTuple):
    """What takes the place of the weighed sum of rewards, what to log, and what the multipliers minimise."""

    reward_BG: Tensor
    terms: dict[str, Tensor]
    own: Tensor


class Constrained(Spec):
    """Lagrange multipliers in place of weights: a reward counts more while its mean is below its threshold, less above it.

    Moskovitz et al. 2024, https://arxiv.org/abs/2310.04373 (mu-PPO; `exact`: xi-PPO): against a reward that is pushed beyond
    where it still says something. Mixed reward = (R - sum of multipliers) A_0 + sum of multiplier A_r, of R rewards that are
    each standardised within the prompt's candidates before they are mixed; A_0 is nearness to the parent, log p of parent -
    log p. Multipliers are sigmoid(nu) or, with `exact`, tanh(nu), which can turn against a reward; nu minimises the sum of
    multiplier (mean reward - threshold). Rewards' own weights are not read. Thresholds are in units of each reward's mean over
    the candidates; take them from where validation NDCG stops growing with it.
    Differs from the paper: advantages are relative to the group, without value heads; nu begins at 0, learns by AdamW, and
    stays within -3 and 3. AdamW takes steps of one length however near the threshold is, and rewards swung around it without
    end; so the mixture uses nu + `damping` (threshold - mean) / standard deviation of the reward in the batch, the
    proportional term of Stooke et al. 2020, https://arxiv.org/abs/2007.03964.
    """

    at_least: tuple[float, ...] = Field(min_length=1, description="threshold of each reward, in the order of `rewards`")
    exact: bool = Field(False, description="hold rewards at their thresholds, also from above")
    damping: float = Field(2.0, ge=0, description="how much the distance to the threshold counts at once; 0: as in the paper")
    learning_rate: float = Field(0.01, gt=0, le=1, description="of the multipliers, AdamW")

    def build(self, names: Sequence[str]) -> "Multipliers":
        """`names` of the rewards, for the log."""
        if len(names) != len(self.at_least):
            raise ValueError(
                f"at_least has {len(self.at_least)} thresholds for {len(names)} rewards ({', '.join(names)}): give one for each"
            )
        return Multipliers(self, names)


class Multipliers(nn.Module):
    """Its state is in the checkpoint; `Mixed.own` alone trains it."""

    def __init__(self, spec: Constrained, names: Sequence[str]):
        super().__init__()
        self.spec, self.names, self.learning_rate = spec, tuple(names), spec.learning_rate
        self.nu_R = nn.Parameter(torch.zeros(len(names)))
        self.register_buffer("threshold_R", torch.tensor(spec.at_least))

    def _squash(self, nu_R: Tensor) -> Tensor:
        return nu_R.tanh() if self.spec.exact else nu_R.sigmoid()

    def forward(self, reward_RBG: Tensor, group: Group) -> Mixed:
        """`reward_RBG` as of `reward_of_each`; of the group, all but its rewards is read."""
        with torch.no_grad():
            self.nu_R.clamp_(-FURTHEST, FURTHEST)
        exists_BG, reward_RBG = group.exists_BG, reward_RBG.detach()
        gap_R = torch.stack([mean_of(each_BG, exists_BG).mean() for each_BG in reward_RBG]).to(self.nu_R) - self.threshold_R
        spread_R = torch.stack([_spread(each_BG[exists_BG]) for each_BG in reward_RBG]).to(self.nu_R)
        damped_R = self.nu_R.detach() - self.spec.damping * gap_R / spread_R
        share_R = self._squash(damped_R.clamp(-FURTHEST, FURTHEST))
        near_BG = (item_log_prob(group.parent_BGT) - item_log_prob(group.log_prob_BGT)).detach()
        mixed_BG = (len(share_R) - share_R.sum()) * _standard(near_BG, exists_BG)
        for share, each_BG in zip(share_R, reward_RBG, strict=True):
            mixed_BG = mixed_BG + share * _standard(each_BG, exists_BG)
        terms = {f"above_threshold/{name}": gap for name, gap in zip(self.names, gap_R, strict=True)}
        terms |= {f"multiplier/{name}": share for name, share in zip(self.names, share_R, strict=True)}
        return Mixed(mixed_BG.to(near_BG), terms, (self._squash(self.nu_R) * gap_R).sum())


def _spread(reward_X: Tensor) -> Tensor:
    """The standard deviation; next to nothing where there is none."""
    return (reward_X - reward_X.mean()).square().mean().sqrt().nan_to_num(0.0).clamp(min=1e-6)


def _standard(part_BG: Tensor, exists_BG: Tensor) -> Tensor:
    return advantage(part_BG, exists_BG, standardise=True, epsilon=EPSILON)
