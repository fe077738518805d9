"""Rewards held at thresholds by multipliers. Shapes: B = prompts, G = candidates, R = rewards."""

import math

import pytest
import torch
from policy_groups import a_group
from torch import Tensor

from recsys.policy.group import Group
from recsys.policy.measures import advantage
from recsys.policy.rere import ReRe
from recsys.policy.rewards.constrained import Constrained, Multipliers


def rewards(group: Group, number: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(number, *group.exists_BG.shape, generator=generator) * group.exists_BG


def stepped(mean: float, **settings: object) -> Multipliers:
    """After one step of plain gradient descent at .1, with a reward of this mean."""
    multipliers = Constrained(at_least=(0.44,), **settings).build(["hit"])
    group = a_group(ReRe)
    multipliers(torch.full((1, *group.exists_BG.shape), mean), group).own.backward()
    with torch.no_grad():
        multipliers.nu_R -= 0.1 * multipliers.nu_R.grad
    return multipliers


@pytest.mark.parametrize(("exact", "nu", "multiplier"), [(True, -0.006, -0.0060), (False, -0.0015, 0.4996)])
def test_one_step_by_hand(exact: bool, nu: float, multiplier: float) -> None:
    found = stepped(0.5, exact=exact, damping=0)
    assert found.nu_R.tolist() == pytest.approx([nu], abs=1e-6)
    group = a_group(ReRe)
    after = found(torch.full((1, *group.exists_BG.shape), 0.5), group)
    assert after.terms["multiplier/hit"] == pytest.approx(multiplier, abs=1e-4)
    assert after.terms["above_threshold/hit"] == pytest.approx(0.06, abs=1e-6)


def test_damping_by_hand() -> None:
    """Rewards 0 and 1 evenly: mean .5, deviation .5, threshold .25: nu of -2 (.25) / .5 = -1."""
    group = a_group(ReRe, exists_BG=torch.ones(6, 5, dtype=torch.bool))
    reward_RBG = (torch.arange(30).reshape(1, 6, 5) % 2).float()
    found = Constrained(at_least=(0.25,)).build(["hit"])(reward_RBG, group)
    assert found.terms["multiplier/hit"] == pytest.approx(1 / (1 + math.e), abs=1e-6)
    assert found.own.item() == pytest.approx(0.5 * 0.25)


@pytest.mark.parametrize("exact", [True, False])
def test_a_reward_below_its_threshold_comes_to_count_more(exact: bool) -> None:
    assert stepped(0.3, exact=exact).nu_R.item() > 0


def test_the_mixture() -> None:
    """Multipliers of .5: (2 - 1) nearness + .5 of each, all standardised within the prompt."""
    group = a_group(ReRe)
    reward_RBG = rewards(group)
    near_BG = group.parent_BGT.detach().sum(2) - group.log_prob_BGT.detach().sum(2)
    first, second, near = (
        advantage(part_BG, group.exists_BG, standardise=True, epsilon=1e-4) for part_BG in (*reward_RBG, near_BG)
    )
    mixed = Constrained(at_least=(0.1, 0.2), damping=0).build(["hit", "task"])(reward_RBG, group)
    torch.testing.assert_close(mixed.reward_BG, near + 0.5 * first + 0.5 * second)
    assert mixed.terms["multiplier/hit"] == 0.5
    mean = (reward_RBG[1].sum(1) / group.exists_BG.sum(1)).mean().item()
    assert mixed.terms["above_threshold/task"] == pytest.approx(mean - 0.2, abs=1e-6)
    assert not mixed.reward_BG[~group.exists_BG].any()


def test_the_unit_of_a_reward_does_not_matter() -> None:
    group = a_group(ReRe)
    reward_RBG = rewards(group)
    plain = Constrained(at_least=(0.1, 0.2)).build(["a", "b"])(reward_RBG, group)
    scaled_RBG = reward_RBG * torch.tensor([1.0, 50.0])[:, None, None]
    scaled = Constrained(at_least=(0.1, 10.0)).build(["a", "b"])(scaled_RBG, group)
    torch.testing.assert_close(scaled.reward_BG, plain.reward_BG, atol=5e-3, rtol=0)


def test_gradients_reach_the_multipliers_alone() -> None:
    group = a_group(ReRe)
    reward_RBG = rewards(group).requires_grad_()
    multipliers = Constrained(at_least=(0.1, 0.2)).build(["a", "b"])
    mixed = multipliers(reward_RBG, group)
    assert not mixed.reward_BG.requires_grad
    assert not any(term.requires_grad for term in mixed.terms.values())
    found = torch.autograd.grad(mixed.own, [multipliers.nu_R, reward_RBG, group.log_prob_BGT], allow_unused=True)
    assert found[0] is not None
    assert found[1:] == (None, None)


def test_multipliers_stay_where_they_can_turn_back() -> None:
    """A threshold that is never met, then always."""
    multipliers = Constrained(at_least=(0.5,), learning_rate=0.2).build(["hit"])
    group = a_group(ReRe)
    optimizer = torch.optim.AdamW(multipliers.parameters(), lr=multipliers.learning_rate, weight_decay=0)
    for mean in (0.0, 1.0):
        for _ in range(100):
            optimizer.zero_grad()
            multipliers(torch.full((1, *group.exists_BG.shape), mean), group).own.backward()
            optimizer.step()
        multipliers(torch.full((1, *group.exists_BG.shape), mean), group)
        assert multipliers.nu_R.item() == (3 if mean == 0 else -3)


def test_its_state_survives_a_round_trip() -> None:
    first, second = (Constrained(at_least=(0.1, 0.2)).build(["a", "b"]) for _ in range(2))
    torch.nn.init.constant_(first.nu_R, 0.7)
    second.load_state_dict(first.state_dict())
    group = a_group(ReRe)
    assert torch.equal(second(rewards(group), group).reward_BG, first(rewards(group), group).reward_BG)


def test_nothing_exists() -> None:
    group = a_group(ReRe, exists_BG=torch.zeros(6, 5, dtype=torch.bool))
    mixed = Constrained(at_least=(0.1, 0.2)).build(["a", "b"])(torch.zeros(2, 6, 5), group)
    assert not mixed.reward_BG.any()
    assert mixed.own.isfinite()


def test_a_threshold_for_every_reward() -> None:
    with pytest.raises(ValueError, match=r"at_least has 1 thresholds for 2 rewards \(hit, task\): give one for each"):
        Constrained(at_least=(0.5,)).build(["hit", "task"])
