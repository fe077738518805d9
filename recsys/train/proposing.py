"""What a policy proposes to a prompt, and what the proposals are worth.

Shapes: B = prompts, L = history, M = L + 1, E = excluded items, G = candidates, T = tokens of a candidate, R = rewards.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch
from recsys.columns import FIRST_ID
from recsys.policy.group import Group, Proposals
from recsys.policy.rewards.constrained import Mixed
from recsys.policy.rewards.reward import Proposal, RewardSpec
from recsys.policy.rewards.total import reward_of_each, total
from recsys.train.actor import Actor

Scorer = Callable[[Batch, Tensor], Tensor]
"""score_BG of items for the prompts of a batch, by a recommender that does not learn."""


class Served(NamedTuple):
    """What a serving graph is given of prompts."""

    history_BL: Tensor
    length_B: Tensor
    time_BM: Tensor | None


def served(batch: Batch) -> Served:
    """The prompts of a batch, padded."""
    history = batch.ids["history"]
    history_BL, time_BM = history.padded(), None
    if "time" in batch.ids:
        time_BM = batch.ids["time"].padded()
        time_BM = nn.functional.pad(time_BM, (0, history_BL.shape[1] + 1 - time_BM.shape[1]))  # histories may all be empty
    return Served(history_BL, history.length_B, time_BM)


def excluded(batch: Batch) -> Tensor:
    """exclude_BE: the items seen before, but never the one that the log has next."""
    seen_BE = batch.ids["seen"].padded()
    return seen_BE.where(seen_BE != batch.ids["item"].value_N[:, None], 0)


@dataclass(frozen=True)
class Proposer:
    """`with_target`: the logged item is a candidate, in place of the last one where it is not among them by itself."""

    kind: Proposals
    count: int
    with_target: bool = False

    def __call__(self, actor: Actor, model: nn.Module, state: object, batch: Batch, seed: int) -> Tensor:
        """item_BG, 0 where there is no candidate."""
        exclude_BE, generator = excluded(batch), Generator().manual_seed(seed)
        match self.kind:
            case "beam":
                item_BG = actor.best(model, state, exclude_BE, self.count)
            case "sample":
                item_BG = actor.sample(model, state, exclude_BE, self.count, generator)
            case "greedy_and_sample":
                drawn_BG = actor.sample(model, state, exclude_BE, self.count - 1, generator)
                item_BG = torch.cat([actor.best(model, state, exclude_BE, 1), drawn_BG], dim=1)
            case "none":
                return batch.ids["item"].value_N[:, None]
        return with_target(item_BG, batch.ids["item"].value_N) if self.with_target else item_BG


def with_target(item_BG: Tensor, target_B: Tensor) -> Tensor:
    """The target is the last candidate where it was none."""
    missing_B = ~(item_BG == target_B[:, None]).any(1)
    return torch.cat([item_BG[:, :-1], target_B.where(missing_B, item_BG[:, -1])[:, None]], dim=1)


@dataclass(frozen=True)
class Rewarder:
    """The sum of rewards times weights or, with `multipliers`, the mixture that keeps each above its threshold."""

    rewards: tuple[RewardSpec, ...]
    tasks: tuple[str, ...] = ()  # whose labels the batches have
    score: Scorer | None = None
    multipliers: Callable[[Tensor, Group], Mixed] | None = None

    def __call__(self, group: Group, item_BG: Tensor, batch: Batch) -> tuple[Group, dict[str, Tensor], Tensor | None]:
        """The group with its rewards, further terms to log, and the loss of the multipliers."""
        if not self.rewards:
            return group, {}, None
        reward_RBG = self.each(item_BG, batch)
        if self.multipliers is None:
            return replace(group, reward_BG=total(self.rewards, reward_RBG)), {}, None
        mixed = self.multipliers(reward_RBG, group)
        return replace(group, reward_BG=mixed.reward_BG), mixed.terms, mixed.own

    def each(self, item_BG: Tensor, batch: Batch) -> Tensor:
        """reward_RBG, without weights."""
        score, scorer = None, self.score
        if scorer is not None:

            def score(asked_BG: Tensor) -> Tensor:
                return scorer(batch, asked_BG)

        return reward_of_each(self.rewards, proposal(item_BG, batch, self.tasks, score))


def proposal(
    item_BG: Tensor, batch: Batch, tasks: tuple[str, ...] = (), score: Callable[[Tensor], Tensor] | None = None
) -> Proposal:
    """What rewards are given."""
    label_BK = batch.label_BT if tasks else None
    return Proposal(item_BG, item_BG >= FIRST_ID, batch.ids["item"].value_N, label_BK, tasks, score)
