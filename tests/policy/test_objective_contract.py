"""Every policy objective, by one contract. Shapes: B = prompts, G = candidates, T = tokens of a candidate."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from policy_groups import OBJECTIVES, WIDTH, a_group, built, gradient
from torch import Tensor, nn

from recsys.policy.group import Group, Learned, Loss, Objective

contract = pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES)
PROPOSALS = {"beam", "sample", "greedy_and_sample", "none"}


def tensors(group: Group) -> dict[str, Tensor]:
    found = {field.name: getattr(group, field.name) for field in fields(group)}
    return {name: part.detach().clone() for name, part in found.items() if isinstance(part, Tensor)}


def same(first: Loss, second: Loss) -> bool:
    return torch.equal(first.loss_B, second.loss_B) and all(torch.equal(first.terms[k], second.terms[k]) for k in first.terms)


def assert_finite(loss: Loss, group: Group) -> None:
    assert loss.loss_B.isfinite().all()
    assert gradient(loss, group.log_prob_BGT).isfinite().all()
    assert all(term.isfinite() for term in loss.terms.values()), loss.terms
    assert loss.own is None or loss.own.isfinite()


@contract
def test_it_says_what_it_needs(kind: type[Objective]) -> None:
    assert set(kind.proposals) <= PROPOSALS
    assert kind.logged == (kind.proposals == ("none",))
    assert not (kind.logged and kind.needs_target), "there is nothing the logged item could give way to"
    made = kind().build(WIDTH)
    assert isinstance(made, Learned) or made == kind()


@contract
def test_what_is_left_out_unrewarded_would_have_taught_nothing(kind: Any) -> None:
    """And what teaches something is not left out."""
    if not kind.logged:
        assert kind.reads_unrewarded
        return
    group = a_group(kind)
    group = replace(group, reward_BG=torch.zeros_like(group.reward_BG))
    loss = built(kind)(group)
    taught = bool(gradient(loss, group.log_prob_BGT).any()) or loss.own is not None
    assert kind.reads_unrewarded == taught


@contract
def test_shapes_terms_and_no_mutation(kind: Any) -> None:
    group = a_group(kind)
    before = tensors(group)
    loss = built(kind)(group)
    assert loss.loss_B.shape == (6,)
    assert_finite(loss, group)
    assert gradient(loss, group.log_prob_BGT).any()
    assert {"reward", "hit_share", "skipped_share", "kl_to_parent"} <= loss.terms.keys()
    assert all(term.ndim == 0 and not term.requires_grad for term in loss.terms.values())
    assert loss.terms["kl_to_parent"] > 0
    assert loss.terms["hit_share"] == 1
    for name, part in tensors(group).items():
        assert torch.equal(part, before[name]), name


@contract
def test_the_same_group_has_the_same_loss_however_often(kind: Any) -> None:
    module = built(kind)
    first = module(a_group(kind))
    module(a_group(kind, seed=7))
    assert same(module(a_group(kind)), first)


@contract
def test_only_the_policy_gets_a_gradient(kind: Any) -> None:
    group, module = a_group(kind), built(kind)
    loss = module(group)
    for name in ("parent_BGT", "reward_BG", "propensity_B", "state_BD"):
        assert not gradient(loss, getattr(group, name)).any(), name
    if isinstance(module, nn.Module):
        own = list(module.parameters())
        assert loss.own is not None
        assert not any(gradient(loss, parameter).any() for parameter in own)
        of_own = torch.autograd.grad(loss.own, [*own, group.state_BD, group.log_prob_BGT], allow_unused=True)
        assert any(part is not None and part.any() for part in of_own[: len(own)])
        assert of_own[-2:] == (None, None), "what it needs for itself does not shape the policy"
    else:
        assert loss.own is None


@contract
def test_prompts_do_not_touch_each_other(kind: Any) -> None:
    """The gradient of a prompt's loss is its own candidates' alone."""
    group = a_group(kind)
    loss_B = built(kind)(group).loss_B
    (gradient_BGT,) = torch.autograd.grad(loss_B[1], [group.log_prob_BGT])
    assert not gradient_BGT[[0, 2, 3, 4, 5]].any()


@contract
def test_candidates_that_do_not_exist_do_not_count(kind: Any) -> None:
    if kind.logged:
        pytest.skip("has one candidate")
    group, module = a_group(kind), built(kind)
    loss = module(group)
    assert not gradient(loss, group.log_prob_BGT)[0, 3:].any()
    short = {name: getattr(group, name)[:1, :3] for name in ("log_prob_BGT", "parent_BGT", "reward_BG", "exists_BG", "item_BG")}
    if kind.__name__ != "PGRank":  # other numbers are drawn for other shapes
        alone = module(replace(group, target_B=group.target_B[:1], propensity_B=None, state_BD=None, **short))
        torch.testing.assert_close(alone.loss_B, loss.loss_B[:1])


@contract
def test_one_candidate(kind: Any) -> None:
    group = a_group(kind)
    first = {name: getattr(group, name)[:, :1] for name in ("parent_BGT", "reward_BG", "exists_BG", "item_BG")}
    leaf_BGT = group.log_prob_BGT.detach()[:, :1].requires_grad_()
    group = replace(group, log_prob_BGT=leaf_BGT, target_B=torch.zeros(6, dtype=torch.long), **first)
    loss = built(kind)(group)
    assert_finite(loss, group)
    assert loss.terms["skipped_share"] == (0 if kind.logged else 1)


@contract
def test_nothing_exists(kind: Any) -> None:
    group = a_group(kind)
    nothing = {name: torch.zeros_like(getattr(group, name)) for name in ("parent_BGT", "reward_BG", "exists_BG")}
    leaf_BGT = torch.zeros_like(group.log_prob_BGT).requires_grad_()
    group = replace(group, log_prob_BGT=leaf_BGT, target_B=torch.full((6,), -1), **nothing)
    loss = built(kind)(group)
    assert_finite(loss, group)
    assert not loss.loss_B.any()
    assert not gradient(loss, leaf_BGT).any()
    assert loss.terms["skipped_share"] == 1
    assert loss.terms["hit_share"] == 0


@contract
def test_no_logged_item_among_the_candidates(kind: Any) -> None:
    """What prefers the logged item, or learns from it, skips the prompt; what compares rewards goes on."""
    group = a_group(kind, target_B=torch.full((6,), -1))
    loss = built(kind)(group)
    assert_finite(loss, group)
    assert loss.terms["hit_share"] == 0
    if kind.logged or not kind.reads_reward:
        assert loss.terms["skipped_share"] == 1
        assert not gradient(loss, group.log_prob_BGT).any()


@contract
@pytest.mark.parametrize("reward", [0.0, 0.9])  # the mean of three times .9 is not .9
def test_constant_rewards_are_skipped_and_counted(kind: Any, reward: float) -> None:
    if kind.logged or not kind.reads_reward:
        pytest.skip("does not compare rewards")
    group = a_group(kind)
    reward_BG = group.reward_BG.detach().clone()
    reward_BG[:3] = reward * group.exists_BG[:3]
    settings = {"beta": 0.0} if "beta" in kind.model_fields and "gained" not in dir(kind) else {}
    loss = built(kind, **settings)(replace(group, reward_BG=reward_BG))
    gradient_BGT = gradient(loss, group.log_prob_BGT)
    assert loss.terms["skipped_share"] == 0.5
    assert not gradient_BGT[:3].any()
    assert gradient_BGT[3:].flatten(1).any(1).all()


@contract
def test_far_from_the_parent_it_stays_finite(kind: Any) -> None:
    """A parent that finds a candidate 1e13 times as probable, or as improbable."""
    for shift in (-30.0, 30.0):
        group = a_group(kind)
        group = replace(group, parent_BGT=(group.log_prob_BGT.detach() + shift) * group.exists_BG[..., None])
        assert_finite(built(kind)(group), group)
    group = a_group(kind)
    group = replace(group, parent_BGT=(group.log_prob_BGT.detach() + 100) * group.exists_BG[..., None])
    terms = built(kind)(group).terms
    assert all(term.isfinite() for term in terms.values()), "one runaway candidate does not hide what is logged"


@contract
def test_repeated_candidates_are_counted(kind: Any) -> None:
    group = a_group(kind)
    assert built(kind)(group).terms["distinct_share"] == 1
    if not kind.logged:
        again_BG = group.item_BG.clone()
        again_BG[:, 1] = again_BG[:, 0]
        loss = built(kind)(replace(group, item_BG=again_BG))
        assert loss.terms["distinct_share"] == pytest.approx((2 / 3 + 5 * 4 / 5) / 6)


@contract
def test_a_learned_objective_survives_a_round_trip(kind: Any) -> None:
    first, second = built(kind), kind().build(WIDTH)
    if not isinstance(first, nn.Module):
        pytest.skip("has no parameters")
    torch.nn.init.normal_(first.output.weight)
    second.load_state_dict(first.state_dict())
    assert same(second(a_group(kind)), first(a_group(kind)))
