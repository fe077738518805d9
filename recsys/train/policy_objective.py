"""Where a policy's loss is made: it proposes, the rewards and its parent judge, and the objective says what to minimise.

Shapes: B = prompts, G = candidates, T = tokens of a candidate (but loss_T and count_T, of the one task there is).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from recsys.batch import Batch
from recsys.columns import FIRST_ID
from recsys.policy.group import Group, Loss
from recsys.train.actor import Actor, Frozen
from recsys.train.distributed import TABLES
from recsys.train.job import Drawn, Found, Outcome
from recsys.train.proposing import Proposer, Rewarder, proposal, served

POLICY = "policy"


@dataclass(frozen=True)
class PolicyLearner:
    """Every prompt is an example. The policy acts without dropout, as it is served, so that it begins exactly at its parent."""

    actor: Actor
    parent: Frozen
    objective: Callable[[Group], Loss]
    propose: Proposer
    reward: Rewarder

    @property
    def weights(self) -> Mapping[str, float]:
        return {POLICY: 1.0}

    def draw(self, batch: Batch, generator: Generator) -> Drawn:
        return Drawn(self.actor.look_ups(batch), int(torch.randint(2**62, (1,), generator=generator)))

    def counts(self, batch: Batch) -> Tensor:
        return torch.full((1,), float(batch.rows), device=batch.ids["item"].value_N.device)

    def parts(self, model: nn.Module, found: Found, batch: Batch, sizes: list[int]) -> Iterator[tuple[Found, Batch]]:
        return ((self.actor.of_part(found, batch, part), part) for part in batch.split(sizes))

    def losses(self, model: nn.Module, found: Found, batch: Batch, drawn: Drawn, count_T: Tensor, step: int) -> Outcome:
        settle(model)
        state = self.actor.state(model, found, batch)
        seed = seed_of(drawn.extra, batch)
        with torch.no_grad():
            item_BG = self.propose(self.actor, model, state, batch, seed)
            history_BL, length_B, time_BM = served(batch)
            parent_BGT = self.parent.log_probs(history_BL, length_B, item_BG, time_BM)
        group = Group(
            self.actor.log_probs(model, state, item_BG), parent_BGT, torch.zeros_like(parent_BGT[..., 0]),
            item_BG >= FIRST_ID, proposal(item_BG, batch).column_B,
            propensity_B=batch.propensity_B if len(batch.propensity_B) else None,
            state_BD=self.actor.summary(state).detach(), item_BG=item_BG, seed=seed,
        )  # fmt: skip
        group, terms, of_rewards = self.reward(group, item_BG, batch)
        loss = self.objective(group)
        owns = [own for own in (loss.own, of_rewards) if own is not None]
        own = torch.stack(owns).sum() * batch.rows / count_T[0] if owns else None
        return Outcome(loss.loss_B.sum()[None] / count_T, terms | loss.terms, own)


def settle(model: nn.Module) -> None:
    """Take dropout out of the dense layers."""
    for name, child in model.named_children():
        if f"{name}." != TABLES:
            child.eval()


def seed_of(drawn: int, batch: Batch) -> int:
    """Of what is drawn for these prompts. A user has one prompt an epoch, so that parts of a batch, and processes, differ."""
    first = int(batch.ids["user"].value_N[0])
    return int(np.random.SeedSequence((drawn, first)).generate_state(1, np.uint64)[0] >> 1)
