"""A bandit whose best item is known: every objective makes a policy earn more than its parent.

Shapes: C = contexts, I = items, B = prompts, G = candidates, T = tokens of a candidate.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from policy_groups import OBJECTIVES, TwoTokens
from torch import Generator, Tensor, nn

from recsys.policy.group import Group
from recsys.policy.remax import ReMax
from recsys.policy.rere import ReRe
from recsys.policy.rewards.constrained import Constrained
from recsys.policy.rewards.hit import Hit
from recsys.policy.rewards.ndcg import NDCG
from recsys.policy.rewards.rank import Rank
from recsys.policy.rewards.recommender import Recommender
from recsys.policy.rewards.reward import Proposal, RewardSpec
from recsys.policy.rewards.total import reward_of_each, total

CONTEXTS, ITEMS, CANDIDATES = 4, 8, 4
BEST_C = torch.tensor([1, 4, 6, 3])
CHANCE_CI = torch.full((CONTEXTS, ITEMS), 0.05).scatter_(1, BEST_C[:, None], 0.65)  # of being the next item, or liked if shown
REWARDS: dict[str, tuple[RewardSpec, ...]] = {"rere": (Hit(), Rank()), "pg_rank": (Hit(),), "lipo": (Hit(),), "remax": (Hit(),)}


def earned(policy: nn.Module) -> Tensor:
    """value_C, exact."""
    return (policy().sum(2).exp() * CHANCE_CI).sum(1).detach()


def propose(how: str, log_prob_BI: Tensor, generator: Generator) -> Tensor:
    """Items from 0."""
    match how:
        case "beam":
            return log_prob_BI.topk(CANDIDATES, dim=1).indices
        case "sample":
            return log_prob_BI.exp().multinomial(CANDIDATES, replacement=True, generator=generator)
        case _:
            best_B1 = log_prob_BI.argmax(1, keepdim=True)
            return torch.cat([best_B1, propose("sample", log_prob_BI, generator)], 1)


def group_of(policy: nn.Module, parent: nn.Module, context_B: Tensor, item_BG: Tensor, **parts: Any) -> Group:
    log_prob_BGT, parent_BGT = (of()[context_B[:, None], item_BG] for of in (policy, parent))
    exists_BG = torch.ones_like(item_BG, dtype=torch.bool)
    state_BD = nn.functional.one_hot(context_B, CONTEXTS).float()
    return Group(
        log_prob_BGT, parent_BGT.detach(), exists_BG=exists_BG, item_BG=item_BG + 1, state_BD=state_BD, **parts
    )  # fmt: skip


def next_item_group(
    kind: Any, policy: nn.Module, parent: nn.Module, how: str, rewards: tuple[RewardSpec, ...], generator: Generator
) -> Group:
    context_B = torch.arange(CONTEXTS).repeat(16)
    target_B = CHANCE_CI[context_B].multinomial(1, generator=generator)[:, 0]
    item_BG = propose(how, policy().sum(2).detach()[context_B], generator)
    if kind.needs_target:
        absent_B = ~(item_BG == target_B[:, None]).any(1)
        item_BG[absent_B, -1] = target_B[absent_B]
    score_BI = CHANCE_CI[context_B]
    proposal = Proposal(
        item_BG + 1, torch.ones_like(item_BG, dtype=torch.bool), target_B + 1, score=lambda item: score_BI.gather(1, item - 1)
    )
    reward_BG = total(rewards, reward_of_each(rewards, proposal))
    seed = int(torch.randint(2**31, (), generator=generator))
    return group_of(policy, parent, context_B, item_BG, reward_BG=reward_BG, target_B=proposal.column_B, seed=seed)


def logged_group(policy: nn.Module, parent: nn.Module, generator: Generator) -> Group:
    """A log that shows the first items more than the last."""
    context_B = torch.arange(CONTEXTS).repeat(16)
    behaviour_I = torch.arange(ITEMS, 0, -1) / sum(range(ITEMS + 1))
    item_B = behaviour_I.multinomial(len(context_B), replacement=True, generator=generator)
    reward_B = (torch.rand(len(context_B), generator=generator) < CHANCE_CI[context_B, item_B]).float()
    return group_of(
        policy, parent, context_B, item_B[:, None], reward_BG=reward_B[:, None],
        target_B=torch.zeros(len(context_B), dtype=torch.long), propensity_B=behaviour_I[item_B],
    )  # fmt: skip


def trained(spec: Any, rewards: tuple[RewardSpec, ...] | None = None, how: str | None = None, steps: int = 150) -> list[Tensor]:
    """What parent and policy earn."""
    torch.manual_seed(5)
    policy, parent, generator = TwoTokens(CONTEXTS), TwoTokens(CONTEXTS), Generator().manual_seed(6)
    objective = spec.build(CONTEXTS)
    rewards = rewards or REWARDS.get(spec.kind, (Hit(),))
    own = list(objective.parameters()) if isinstance(objective, nn.Module) else []
    optimizer = torch.optim.Adam([*policy.parameters(), *own], lr=0.03)
    for _ in range(steps):
        if spec.logged:
            group = logged_group(policy, parent, generator)
        else:
            group = next_item_group(type(spec), policy, parent, how or spec.proposals[0], rewards, generator)
        loss = objective(group)
        optimizer.zero_grad()
        (loss.loss_B.mean() + (0 if loss.own is None else loss.own)).backward()
        optimizer.step()
    return [earned(parent), earned(policy)]


@pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES)
def test_the_policy_earns_more_than_its_parent(kind: Any) -> None:
    """In every context whose best item can be among the candidates: a beam that never has it learns nothing of it."""
    before_C, after_C = trained(kind())
    assert after_C.mean() > before_C.mean()
    beam_CG = TwoTokens(CONTEXTS)().sum(2).topk(CANDIDATES, dim=1).indices
    within_C = (beam_CG == BEST_C[:, None]).any(1)
    assert 0 < within_C.sum() < CONTEXTS
    seen_C = within_C if kind.proposals[0] == "beam" and not kind.needs_target else torch.ones_like(within_C)
    assert (after_C > before_C)[seen_C].all()


@pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES)
def test_with_each_kind_of_proposals(kind: Any) -> None:
    for how in kind.proposals[1:]:
        before_C, after_C = trained(kind(), rewards=(Hit(),), how=how)
        assert after_C.mean() > before_C.mean(), how


@pytest.mark.parametrize(
    "rewards", [(Recommender(),), (NDCG(),), (Hit(), Recommender(weight=0.3))], ids=["loop", "ndcg", "both"]
)
def test_other_rewards(rewards: tuple[RewardSpec, ...]) -> None:
    how = "beam" if any(reward.ordered for reward in rewards) else "sample"
    before_C, after_C = trained(ReRe(), rewards, how)
    assert after_C.mean() > before_C.mean()


def test_a_fixed_recommender_grades_what_a_rule_of_0_and_1_leaves_alike() -> None:
    """Where a draw and the most probable item both miss, ReMax has nothing to learn from a hit."""
    by_rule, by_score = (trained(ReMax(), rewards, steps=60)[1].mean() for rewards in ((Hit(),), (Recommender(),)))
    assert by_score > by_rule


def test_the_divergence_keeps_the_policy_near_its_parent() -> None:
    free, held = (trained(ReRe(beta=beta), how="sample") for beta in (0.0, 30.0))
    assert held[1].mean() - held[0].mean() < free[1].mean() - free[0].mean()


@pytest.mark.parametrize("exact", [False, True], ids=["at_least", "exact"])
def test_constrained_rewards_stop_where_their_threshold_is(exact: bool) -> None:
    """Unconstrained, the policy would come to propose item 0 alone; the parent proposes it once in seven times."""
    shares = [share_of_first_item(threshold, exact) for threshold in (0.3, 0.7)]
    assert min(shares) > TwoTokens(CONTEXTS)().sum(2).exp()[:, 0].mean() + 0.05
    assert abs(shares[0] - 0.3) < 0.1
    assert abs(shares[1] - 0.7) < 0.1


def share_of_first_item(threshold: float, exact: bool) -> float:
    """Of the proposals in the last of the steps, with that share as constrained reward."""
    policy, parent, generator = TwoTokens(CONTEXTS), TwoTokens(CONTEXTS), Generator().manual_seed(6)
    multipliers = Constrained(at_least=(threshold,), exact=exact).build(["first"])
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
    own = torch.optim.AdamW(multipliers.parameters(), lr=multipliers.learning_rate, weight_decay=0)
    context_B = torch.arange(CONTEXTS).repeat(16)
    shares = []
    for _ in range(700):
        item_BG = propose("sample", policy().sum(2).detach()[context_B], generator)
        parts = {"reward_BG": torch.zeros(item_BG.shape), "target_B": torch.full((len(context_B),), -1)}
        group = group_of(policy, parent, context_B, item_BG, **parts)
        mixed = multipliers((item_BG == 0).float()[None], group)
        loss = ReRe(beta=0, scale="none")(replace(group, reward_BG=mixed.reward_BG))
        optimizer.zero_grad()
        own.zero_grad()
        (loss.loss_B.mean() + mixed.own).backward()
        optimizer.step()
        own.step()
        shares.append((item_BG == 0).float().mean().item())
    return sum(shares[-200:]) / 200
