"""Rewards, by one contract and by hand. Shapes: B = prompts, G = candidates, K = tasks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from policy_groups import REWARDS
from torch import Tensor

from recsys.policy.rewards.hit import Hit
from recsys.policy.rewards.ndcg import NDCG
from recsys.policy.rewards.rank import Rank
from recsys.policy.rewards.recommender import Recommender
from recsys.policy.rewards.reward import Proposal, RewardSpec
from recsys.policy.rewards.task import Task
from recsys.policy.rewards.total import reward_of_each, total

contract = pytest.mark.parametrize("kind", REWARDS.values(), ids=REWARDS)


def proposal(**changes: Any) -> Any:
    """The logged item second; first, of three; not there; nothing there. Item 0 does not exist."""
    item_BG = torch.tensor([[5, 6, 7, 8], [6, 5, 7, 0], [5, 6, 7, 8], [0, 0, 0, 0]])
    label_BK = torch.tensor([[1.0, 30.0], [0.0, torch.nan], [1.0, 5.0], [1.0, 1.0]])
    parts = {
        "item_BG": item_BG, "exists_BG": item_BG > 0, "target_B": torch.tensor([6, 6, 9, 0]), "label_BK": label_BK,
        "tasks": ("like", "dwell"), "score": lambda item_BG: item_BG / 10,
    }  # fmt: skip
    return Proposal(**{**parts, **changes})


def made(kind: type[RewardSpec]) -> RewardSpec:
    return kind(**({"task": "like"} if "task" in kind.model_fields else {}))


@contract
def test_shape_and_candidates_that_do_not_exist(kind: Any) -> None:
    given = proposal()
    reward_BG = made(kind)(given)
    assert reward_BG.shape == (4, 4)
    assert reward_BG.dtype == torch.float32
    assert reward_BG.isfinite().all()
    assert not reward_BG[~given.exists_BG].any()
    assert not reward_BG.requires_grad
    assert reward_BG[0].any()
    assert torch.equal(reward_BG, made(kind)(given))


@contract
def test_prompts_do_not_touch_each_other(kind: Any) -> None:
    given = proposal()
    alone = Proposal(
        given.item_BG[1:2], given.exists_BG[1:2], given.target_B[1:2], given.label_BK[1:2], given.tasks, given.score
    )
    torch.testing.assert_close(made(kind)(alone), made(kind)(given)[1:2])


@contract
def test_what_says_that_order_does_not_count_is_the_same_for_another(kind: Any) -> None:
    order_G, given = torch.tensor([2, 0, 3, 1]), proposal()
    other = replace(given, item_BG=given.item_BG[:, order_G], exists_BG=given.exists_BG[:, order_G])
    same = torch.allclose(made(kind)(other), made(kind)(given)[:, order_G])
    assert same == (not kind.ordered)


@contract
def test_one_logged_action_alone(kind: Any) -> None:
    """Labels and judgements tell actions apart; whether it is the logged item does not."""
    item_BG = torch.tensor([[5], [7]])
    given = Proposal(
        item_BG, item_BG > 0, item_BG[:, 0], torch.tensor([[1.0], [0.0]]), ("like",), lambda item_BG: item_BG.float()
    )
    spec = Recommender(normalise=False) if kind is Recommender else made(kind)
    first, second = spec(given).flatten().tolist()
    assert (first != second) == kind.of_logged


def test_hit() -> None:
    assert Hit()(proposal()).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert proposal().column_B.tolist() == [1, 0, -1, -1]


def test_rank() -> None:
    expected = [[-0.3904, 0, -0.1952, -0.1681], [0, -0.2961, -0.2346, 0], [0] * 4, [0] * 4]
    torch.testing.assert_close(Rank()(proposal()), torch.tensor(expected), atol=1e-4, rtol=0)


def test_ndcg() -> None:
    expected = [[0, 0.6309, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]
    torch.testing.assert_close(NDCG()(proposal()), torch.tensor(expected), atol=1e-4, rtol=0)


def test_places_are_counted_over_candidates_that_exist() -> None:
    item_BG = torch.tensor([[0, 5, 6]])
    given = Proposal(item_BG, item_BG > 0, torch.tensor([6]))
    assert NDCG()(given)[0].tolist() == pytest.approx([0, 0, 0.6309], abs=1e-4)
    assert Rank()(given)[0].tolist() == pytest.approx([0, -1 / 1.6309, 0], abs=1e-4)


class TestTask:
    def test_the_label_of_the_logged_item(self) -> None:
        assert Task(task="dwell")(proposal()).tolist() == [[0, 30, 0, 0], [0] * 4, [0] * 4, [0] * 4]
        assert Task(task="like")(proposal()).tolist() == [[0, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
        assert Task(task="like").reads_task == "like"
        assert Hit().reads_task is None

    def test_a_task_that_is_none(self) -> None:
        with pytest.raises(ValueError, match=r"task 'love' is none of the tasks whose labels are read: \['like', 'dwell'\]"):
            Task(task="love")(proposal())
        with pytest.raises(ValueError, match="none of the tasks"):
            Task(task="like")(proposal(label_BK=None))


class TestRecommender:
    def test_scores_as_they_are(self) -> None:
        expected = [[0.5, 0.6, 0.7, 0.8], [0.6, 0.5, 0.7, 0], [0.5, 0.6, 0.7, 0.8], [0] * 4]
        torch.testing.assert_close(Recommender(normalise=False)(proposal()), torch.tensor(expected))

    def test_normalised_the_scale_does_not_matter(self) -> None:
        reward_BG = Recommender()(proposal())
        larger_BG = Recommender()(proposal(score=lambda item_BG: 100 * item_BG + 7))
        torch.testing.assert_close(larger_BG, reward_BG, atol=1e-4, rtol=1e-4)
        assert reward_BG[1].tolist() == pytest.approx([0, -1, 1, 0], abs=1e-4)

    def test_no_gradient_to_what_scores(self) -> None:
        weight = torch.ones((), requires_grad=True)
        assert not Recommender(normalise=False)(proposal(score=lambda item_BG: item_BG * weight)).requires_grad

    def test_no_recommender_and_scores_that_are_no_numbers(self) -> None:
        with pytest.raises(ValueError, match="needs a trained model"):
            Recommender()(proposal(score=None))
        with pytest.raises(ValueError, match="no finite number"):
            Recommender()(proposal(score=lambda item_BG: item_BG / 0))

    def test_scores_of_items_that_do_not_exist_are_not_looked_at(self) -> None:
        def score(item_BG: Tensor) -> Tensor:
            return torch.where(item_BG > 0, 1.0 * item_BG, torch.nan)

        assert Recommender()(proposal(score=score)).isfinite().all()


def test_the_total_of_hit_and_rank_is_the_papers() -> None:
    rewards = [Hit(), Rank()]
    reward_RBG = reward_of_each(rewards, proposal())
    assert total(rewards, reward_RBG)[0].tolist() == pytest.approx([-0.3904, 1, -0.1952, -0.1681], abs=1e-4)
    heavier = [Hit(weight=2), Rank(weight=0.5)]
    assert total(heavier, reward_RBG)[0].tolist() == pytest.approx([-0.1952, 2, -0.0976, -0.08405], abs=1e-4)
