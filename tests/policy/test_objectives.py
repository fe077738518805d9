"""Objectives by numbers worked by hand. Shapes: B = prompts, G = candidates, T = tokens of a candidate."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.policy.a_lol import ALoL
from recsys.policy.dpo import DPO
from recsys.policy.group import Group
from recsys.policy.lipo import LiPO
from recsys.policy.measures import advantage, divergence
from recsys.policy.pg_rank import PGRank, log_chance, ndcg
from recsys.policy.remax import ReMax
from recsys.policy.rere import ReRe
from recsys.policy.s_dpo import SDPO
from recsys.policy.top_k_reinforce import TopKReinforce

REWARDS = [-0.3904, 1.0, -0.1952, -0.1681]


def one_prompt(log_prob: Any, parent: Any = None, reward: Any = None, target: int = 0, **more: Any) -> Group:
    """A prompt whose candidates have the numbers given, or lists of them for their tokens."""
    log_prob_GT = torch.tensor(log_prob, dtype=torch.float64)
    log_prob_GT = log_prob_GT if log_prob_GT.ndim == 2 else log_prob_GT[:, None]
    parent_GT = log_prob_GT if parent is None else torch.tensor(parent, dtype=torch.float64).reshape(log_prob_GT.shape)
    reward_G = torch.zeros(len(log_prob_GT)) if reward is None else torch.tensor(reward)
    return Group(
        log_prob_BGT=log_prob_GT[None].clone().requires_grad_(), parent_BGT=parent_GT[None].clone(),
        reward_BG=reward_G.double()[None], exists_BG=torch.ones(1, len(log_prob_GT), dtype=torch.bool),
        target_B=torch.tensor([target]), **more,
    )  # fmt: skip


def gradient_of(objective: Any, group: Group) -> Tensor:
    return torch.autograd.grad(objective(group).loss_B.sum(), [group.log_prob_BGT])[0][0]


def near(values: list[float], tolerance: float = 1e-4) -> Any:
    return pytest.approx(values, abs=tolerance)


class TestGroupAdvantage:
    exists_BG = torch.ones(1, 4, dtype=torch.bool)

    @pytest.mark.parametrize(
        ("reward", "standardise", "expected"),
        [
            (REWARDS, True, [-0.7134, 1.4813, -0.4053, -0.3626]),
            (REWARDS, False, [-0.4520, 0.9384, -0.2568, -0.2297]),
            ([0.0, 1, 0, 0], True, [-0.4999, 1.4997, -0.4999, -0.4999]),
        ],
    )
    def test_by_hand(self, reward: list[float], standardise: bool, expected: list[float]) -> None:
        found_BG = advantage(torch.tensor([reward]).double(), self.exists_BG, standardise=standardise, epsilon=1e-4)
        assert found_BG[0].tolist() == near(expected, 2e-4)

    def test_candidates_that_do_not_exist_are_no_part_of_it(self) -> None:
        exists_BG = torch.tensor([[True, True, False, True]])
        found_BG = advantage(torch.tensor([[1.0, 3, 0, 2]]), exists_BG, standardise=True, epsilon=0)
        assert found_BG[0].tolist() == near([-1, 1, 0, 0], 1e-6)

    def test_divergence(self) -> None:
        assert divergence(torch.zeros(2), torch.tensor([-0.2, 0.2])).tolist() == near([0.01873, 0.02140], 1e-5)


class TestReRe:
    def test_the_gradient_is_the_advantage_per_token(self) -> None:
        group = one_prompt([[-1.0, -2.0]] * 4, reward=REWARDS, target=1)
        expected_G = torch.tensor([-0.7134, 1.4813, -0.4053, -0.3626]) / -(4 * 2)
        found_GT = gradient_of(ReRe(beta=0), group)
        torch.testing.assert_close(found_GT, expected_G.double()[:, None].expand(4, 2), atol=1e-4, rtol=0)
        assert gradient_of(ReRe(beta=0, scale="none"), group)[1, 0] == pytest.approx(-0.9384 / 8, abs=1e-4)

    def test_without_a_hit_only_the_divergence_acts(self) -> None:
        group = one_prompt([-1.0, -2.0], parent=[-1.2, -1.8], reward=[0.0, 0.0], target=-1)
        loss = ReRe(beta=0.5)(group)
        assert loss.loss_B.tolist() == near([0.5 * (0.01873 + 0.02140) / 2], 1e-5)
        assert loss.terms["skipped_share"] == 1
        assert gradient_of(ReRe(beta=0.5), group)[:, 0].tolist() == near(
            [0.5 * (1 - math.exp(-0.2)) / 2, 0.5 * (1 - math.exp(0.2)) / 2], 1e-6
        )


class TestReMax:
    def test_by_hand(self) -> None:
        """R .7 against .5: -.2 mean(-1, -2)."""
        group = one_prompt([[-0.5, -0.5], [-1.0, -2.0]], reward=[0.5, 0.7])
        assert ReMax()(group).loss_B.tolist() == near([0.3], 1e-6)
        assert gradient_of(ReMax(), group).flatten().tolist() == near([0, 0, -0.1, -0.1], 1e-6)

    def test_a_draw_that_earns_what_greedy_earns_teaches_nothing(self) -> None:
        assert not gradient_of(ReMax(), one_prompt([-0.5, -1.0, -2.0], reward=[0.3, 0.3, 0.3])).any()

    def test_clip_and_divergence(self) -> None:
        group = one_prompt([-0.5, -1.0], parent=[-0.5, -0.7], reward=[0.0, 9.0])
        assert ReMax(beta=0.1)(group).loss_B.tolist() == near([5 + 0.1 * 0.3], 1e-6)
        assert gradient_of(ReMax(beta=0.1), group).flatten().tolist() == near([0, -5 - 0.1 * 0.3], 1e-6)


class TestTopKReinforce:
    @pytest.mark.parametrize(
        ("k", "chance", "expected"),
        [
            (16, 0.01, 13.7609),
            (16, 0.1, 3.2943),
            (16, 0.5, 0.000488),
            (2, 0.01, 1.98),
            (2, 0.1, 1.8),
            (2, 0.5, 1.0),
            (1, 0.3, 1.0),
        ],
    )
    def test_the_factor_of_lists(self, k: int, chance: float, expected: float) -> None:
        group = one_prompt([math.log(chance)], reward=[2.0])
        found = gradient_of(TopKReinforce(k=k, behaviour="none"), group)
        assert found.item() == pytest.approx(-2 * expected, rel=1e-3)

    def test_weights_are_ratios_cut_off(self) -> None:
        for propensity, weight in ((0.25, 2.0), (0.125, 3.0)):
            group = one_prompt([math.log(0.5)], reward=[1.0], propensity_B=torch.tensor([propensity]))
            loss = TopKReinforce(k=1, clip=3.0)(group)
            assert loss.loss_B.tolist() == near([weight * math.log(2)], 1e-6)
            assert loss.terms["clipped_share"] == (weight == 3.0)
            assert loss.terms["largest_ratio"] == pytest.approx(0.5 / propensity)
        group = one_prompt([math.log(0.5)], parent=[math.log(0.25)], reward=[1.0])
        assert TopKReinforce(k=1, behaviour="parent")(group).loss_B.tolist() == near([2 * math.log(2)], 1e-6)

    @pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5, math.nan])
    def test_propensities_that_are_none(self, propensity: float) -> None:
        group = one_prompt([-1.0], reward=[1.0], propensity_B=torch.tensor([propensity]))
        with pytest.raises(ValueError, match="it has to be above 0 and at most 1"):
            TopKReinforce()(group)
        TopKReinforce(behaviour="none")(group)

    def test_no_propensities(self) -> None:
        with pytest.raises(ValueError, match="behaviour: logged needs the propensity"):
            TopKReinforce()(one_prompt([-1.0], reward=[1.0]))

    def test_effective_share(self) -> None:
        """Weights 1 and 3: 16 / (2 * 10)."""
        log_prob_BGT = torch.log(torch.tensor([0.3, 0.9])).reshape(2, 1, 1)
        group = Group(
            log_prob_BGT, log_prob_BGT, torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, dtype=torch.long),
            propensity_B=torch.tensor([0.3, 0.3]),
        )  # fmt: skip
        assert TopKReinforce(k=1)(group).terms["effective_share"] == pytest.approx(0.8)


class TestPGRank:
    @pytest.mark.parametrize(("order", "expected"), [([0, 1, 2], -0.7209), ([2, 1, 0], -3.7209)])
    def test_chance_of_a_ranking(self, order: list[int], expected: float) -> None:
        score_BG, exists_BG = torch.tensor([[2.0, 1.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
        assert log_chance(score_BG, exists_BG, torch.tensor([[order]]), 10).item() == pytest.approx(expected, abs=1e-4)

    def test_places_beyond_the_cut_are_left_out(self) -> None:
        """One place of three: the log-softmax."""
        score_BG, exists_BG = torch.tensor([[2.0, 1.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
        found = log_chance(score_BG, exists_BG, torch.tensor([[[1, 0, 2]]]), 1)
        assert found.item() == pytest.approx(score_BG.log_softmax(1)[0, 1].item())

    def test_ndcg(self) -> None:
        """The hit at places 1, 2, 3: 1, .6309, .5; a cut of 2 does not see the last."""
        reward_BG, exists_BG = torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
        order_NBG = torch.tensor([[0, 1, 2], [1, 0, 2], [1, 2, 0]])[:, None]
        assert ndcg(reward_BG, exists_BG, order_NBG, 10).flatten().tolist() == near([1, 0.6309, 0.5])
        assert ndcg(reward_BG, exists_BG, order_NBG, 2).flatten().tolist() == near([1, 0.6309, 0])

    def test_negative_rewards_are_raised(self) -> None:
        order_NBG, exists_BG = torch.tensor([[1, 0]])[:, None], torch.ones(1, 2, dtype=torch.bool)
        assert ndcg(torch.tensor([[0.0, -1.0]]), exists_BG, order_NBG, 10).item() == pytest.approx(0.6309, abs=1e-4)

    def test_rankings_are_drawn_by_their_chances(self) -> None:
        draws = 200 * 100
        order_NBG = PGRank(rankings=200)._draw(torch.tensor([[2.0, 1.0, 0.0]]).expand(100, -1), seed=1)
        share = (order_NBG == torch.tensor([0, 1, 2])).all(2).double().mean().item()
        assert share == pytest.approx(0.4863, abs=4 * math.sqrt(0.4863 * 0.5137 / draws))

    def test_the_gradient_is_that_of_the_expected_metric(self) -> None:
        """Three items, all six rankings: enumerated against drawn."""
        score_G = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
        every = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])[:, None]
        exists_BG, reward_BG = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[0.0, 0.0, 1.0]]).double()
        expected = (log_chance(score_G[None], exists_BG, every, 10).exp() * ndcg(reward_BG, exists_BG, every, 10)).sum()
        (exact_G,) = torch.autograd.grad(expected, [score_G])
        group, prompts = one_prompt([2.0, 1.0, 0.0], reward=[0.0, 0.0, 1.0], target=2), 2500
        many = [part.expand(prompts, *part.shape[1:]) for part in (group.log_prob_BGT, group.parent_BGT, group.reward_BG)]
        many_group = Group(*many, group.exists_BG.expand(prompts, -1), group.target_B.expand(prompts))
        (found_G,) = torch.autograd.grad(-PGRank(rankings=20)(many_group).loss_B.mean(), [group.log_prob_BGT])
        found_G = found_G[0, :, 0]
        torch.testing.assert_close(found_G, exact_G, atol=0.01, rtol=0)
        assert exact_G.abs().max() > 0.05

    def test_one_ranking_alone_is_said(self) -> None:
        group = one_prompt([0.0, -300.0, -600.0], reward=[1.0, 0.0, 0.0])
        loss = PGRank(rankings=4)(group)
        assert loss.terms["distinct_rankings"] == 0.25
        assert not gradient_of(PGRank(rankings=4), group).any()


class TestPreferences:
    def test_dpo(self) -> None:
        loss = DPO(beta=0.1)(one_prompt([-1.0, -2.0], parent=[-1.5, -1.8]))
        assert loss.loss_B.tolist() == near([0.6588])
        assert loss.terms["margin"] == pytest.approx(0.07)
        assert loss.terms["chosen_log_prob"] == -1

    def test_dpo_takes_the_first_other_item(self) -> None:
        log_prob, parent = [-2.0, -1.0, -5.0], [-1.8, -1.5, -5.0]
        found = [DPO(beta=0.1)(one_prompt(log_prob, parent, target=1)).loss_B.item()]
        repeated = one_prompt([-1.0, -1.0, -2.0], [-1.5, -1.5, -1.8], target=1, item_BG=torch.tensor([[7, 7, 8]]))
        found.append(DPO(beta=0.1)(repeated).loss_B.item())
        assert found == near([0.6588, 0.6588])

    def test_sums_over_tokens(self) -> None:
        group = one_prompt([[-0.4, -0.6], [-1.5, -0.5]], parent=[[-1.0, -0.5], [-0.8, -1.0]])
        assert DPO(beta=0.1)(group).loss_B.tolist() == near([0.6588])

    def test_likelihood_of_the_chosen(self) -> None:
        group = one_prompt([-1.0, -2.0], parent=[-1.5, -1.8])
        assert DPO(beta=0.1, likelihood=0.5)(group).loss_B.tolist() == near([0.6588 + 0.5])

    def test_s_dpo(self) -> None:
        loss = SDPO(beta=1)(one_prompt([0.5, -0.2, 0.1], parent=[0.0, 0.0, 0.0]))
        assert loss.loss_B.tolist() == near([0.7733])
        assert loss.terms["margin"] == pytest.approx(0.4)

    def test_s_dpo_with_one_other_is_dpo(self) -> None:
        group = one_prompt([-1.0, -2.0], parent=[-1.5, -1.8])
        torch.testing.assert_close(SDPO(beta=0.1)(group).loss_B, DPO(beta=0.1)(group).loss_B)

    def test_s_dpo_does_not_overflow(self) -> None:
        assert SDPO(beta=1)(one_prompt([-2000.0, 0.0], parent=[0.0, 0.0])).loss_B.item() == 2000

    def test_lipo(self) -> None:
        group = one_prompt([0.2, 0.5, -0.1], parent=[0.0, 0.0, 0.0], reward=[2.0, 1.0, 0.0])
        assert LiPO(beta=1)(group).loss_B.tolist() == near([1.0671])

    def test_lipo_at_the_start_takes_the_candidates_order(self) -> None:
        """All h are 0, so places are 1 and 2: 1 (1 - .6309) log 2."""
        group = one_prompt([-1.0, -2.0], reward=[0.0, 1.0], target=1)
        assert LiPO()(group).loss_B.tolist() == near([(1 - 1 / math.log2(3)) * math.log(2)])


class TestALoL:
    def group(self) -> Group:
        return one_prompt([-2.0], parent=[-3.0], reward=[0.8], state_BD=torch.ones(1, 4))

    def loss(self, **settings: Any) -> float:
        module = ALoL(**settings).build(4)
        torch.nn.init.constant_(module.output.bias, 0.5)
        found: float = module(self.group()).loss_B.item()
        return found

    @pytest.mark.parametrize(("ratio", "expected"), [("item", 1.14), ("token", 1.14), ("none", 0.6)])
    def test_by_hand(self, ratio: str, expected: float) -> None:
        assert self.loss(ratio=ratio) == pytest.approx(expected, abs=1e-6)

    def test_the_ratio_of_tokens_is_each_tokens(self) -> None:
        """Ratios 1.9 (cut) and .1 (cut), where the item's is 1."""
        group = one_prompt([[-1.0, -4.0]], parent=[[-4.0, -1.0]], reward=[1.0], state_BD=torch.ones(1, 4))
        assert ALoL(ratio="token").build(4)(group).loss_B.item() == pytest.approx(1.9 * 1 + 0.1 * 4)
        assert ALoL(ratio="item").build(4)(group).loss_B.item() == pytest.approx(5)

    def test_what_is_below_expectation_is_left_out(self) -> None:
        module = ALoL().build(4)
        torch.nn.init.constant_(module.output.bias, 0.9)
        loss = module(self.group())
        assert loss.loss_B.item() == 0
        assert loss.terms["skipped_share"] == 1
        assert loss.own.item() == pytest.approx(0.01, abs=1e-6)

    def test_the_net_learns_what_prompts_promise(self) -> None:
        torch.manual_seed(1)
        state_BD = torch.eye(4)[torch.arange(40) % 4]
        reward_B = torch.tensor([0.1, 0.4, 0.6, 0.9])[torch.arange(40) % 4]
        log_prob_BGT, exists_BG = torch.full((40, 1, 1), -1.0), torch.ones(40, 1, dtype=torch.bool)
        target_B = torch.zeros(40, dtype=torch.long)
        group = Group(log_prob_BGT, log_prob_BGT, reward_B[:, None], exists_BG, target_B, state_BD=state_BD)
        module = ALoL().build(4)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        for _ in range(300):
            optimizer.zero_grad()
            module(group).own.backward()
            optimizer.step()
        assert module(group).terms["value_error"] < 1e-3
        assert module(group).terms["value"] == pytest.approx(0.5, abs=0.02)
