"""Gradients against finite differences and against enumerated expectations, in float64.

Shapes: B = prompts, G = candidates, T = tokens of a candidate, I = items.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from policy_groups import a_group
from torch import Tensor

from recsys.policy.a_lol import ALoL
from recsys.policy.dpo import DPO
from recsys.policy.group import Group
from recsys.policy.lipo import LiPO
from recsys.policy.measures import advantage, divergence, mean_of
from recsys.policy.pg_rank import PGRank
from recsys.policy.remax import ReMax
from recsys.policy.rere import ReRe
from recsys.policy.s_dpo import SDPO
from recsys.policy.top_k_reinforce import TopKReinforce

PLAIN = {
    "dpo": DPO(likelihood=0.3), "s_dpo": SDPO(beta=1), "lipo": LiPO(beta=1), "pg_rank": PGRank(), "remax": ReMax(),
    "top_k_reinforce": TopKReinforce(k=1, behaviour="none"), "a_lol": ALoL(ratio="none"),
}  # fmt: skip


def differences(value: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences of a number by every element."""
    found = torch.zeros_like(at).flatten()
    for place in range(at.numel()):
        move = torch.zeros_like(at).flatten()
        move[place] = step
        found[place] = (value(at + move.view_as(at)) - value(at - move.view_as(at))) / (2 * step)
    return found.view_as(at)


def of(objective: Any, group: Group) -> Tensor:
    return torch.autograd.grad(objective(group).loss_B.sum(), [group.log_prob_BGT])[0]


@pytest.mark.parametrize("name", PLAIN)
def test_finite_differences(name: str) -> None:
    """Those whose constants do not depend on the policy, as long as no order changes."""
    objective = PLAIN[name]
    group, module = a_group(type(objective), dtype=torch.float64), objective.build(6)
    expected = differences(
        lambda moved: module(replace(group, log_prob_BGT=moved)).loss_B.sum().detach(), group.log_prob_BGT.detach()
    )
    expected *= group.exists_BG[..., None]
    torch.testing.assert_close(of(module, group), expected, atol=1e-6, rtol=1e-6)
    assert expected.any()


def test_rere_is_the_gradient_of_its_objective_at_the_old_policy() -> None:
    """The written-out objective, whose ratio is to log-probabilities that stay where they are."""
    group = a_group(ReRe, dtype=torch.float64)
    old_BGT, parent_BGT = group.log_prob_BGT.detach(), group.parent_BGT.detach()
    advantage_BG = advantage(group.reward_BG.detach(), group.exists_BG, standardise=True, epsilon=1e-4)

    def objective(moved_BGT: Tensor) -> Tensor:
        token_BGT = 0.4 * divergence(moved_BGT, parent_BGT) - (moved_BGT - old_BGT).exp() * advantage_BG[..., None]
        return mean_of(token_BGT.mean(2), group.exists_BG).sum()

    expected = differences(objective, old_BGT) * group.exists_BG[..., None]
    torch.testing.assert_close(of(ReRe(beta=0.4), group), expected, atol=1e-6, rtol=1e-6)


class TestExpectations:
    """A policy over four items and a reward of each: the mean over all draws is the gradient of what the policy earns."""

    def setup_method(self) -> None:
        self.logit_I = torch.tensor([0.5, -0.3, 1.0, 0.1], dtype=torch.float64, requires_grad=True)
        self.reward_I = torch.tensor([0.2, 1.0, 0.4, 0.0], dtype=torch.float64)

    def earned(self, k: int = 1) -> Tensor:
        chance_I = self.logit_I.softmax(0)
        (found,) = torch.autograd.grad(((1 - (1 - chance_I) ** k) * self.reward_I).sum(), [self.logit_I])
        return found

    def group(self, item_BG: Tensor, propensity_B: Tensor | None = None) -> Group:
        log_prob_BGT = self.logit_I.log_softmax(0)[item_BG][..., None]
        return Group(
            log_prob_BGT, log_prob_BGT.detach(), self.reward_I[item_BG], torch.ones_like(item_BG, dtype=torch.bool),
            torch.zeros(len(item_BG), dtype=torch.long), propensity_B,
        )  # fmt: skip

    def expected(self, objective: Any, group: Group, chance_B: Tensor) -> Tensor:
        (found,) = torch.autograd.grad((chance_B.detach() * objective(group).loss_B).sum(), [self.logit_I])
        return -found

    @pytest.mark.parametrize("k", [1, 3])
    def test_top_k_reinforce(self, k: int) -> None:
        """Over the logging policy's actions; with K, of the chance to be among K draws."""
        behaviour_I = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
        group = self.group(torch.arange(4)[:, None], behaviour_I)
        found = self.expected(TopKReinforce(k=k, clip=1000), group, behaviour_I)
        torch.testing.assert_close(found, self.earned(k))

    def test_remax(self) -> None:
        best_BG = torch.stack([torch.full((4,), 2), torch.arange(4)], 1)
        found = self.expected(ReMax(), self.group(best_BG), self.logit_I.softmax(0))
        torch.testing.assert_close(found, self.earned())

    def test_rere_of_samples_without_the_scale(self) -> None:
        """Pairs of draws: the baseline has half of each one's own reward in it, hence 1 - 1/2."""
        pair_BG = torch.cartesian_prod(torch.arange(4), torch.arange(4))
        chance_I = self.logit_I.softmax(0)
        found = self.expected(ReRe(beta=0, scale="none"), self.group(pair_BG), chance_I[pair_BG].prod(1))
        torch.testing.assert_close(found, self.earned() / 2)
