"""Shapes: recsys/models/ranker_inputs.py."""

import math

import pytest
import torch
from ranker_cases import DIM, FIELDS, TASKS, ranker_inputs
from torch import nn
from torch.nn import functional

from recsys.models.esmm import ESMM, product_logit


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def tower_says(tower: nn.Module, probability: float) -> None:
    with torch.no_grad():
        tower[-1].weight.zero_()
        tower[-1].bias.fill_(logit(probability))


def test_by_hand() -> None:
    # P(click) = .2 and P(buy | click) = .5, so P(buy) = .1; "like" follows nothing.
    module = ESMM(given={"buy": "click"}).build(FIELDS, DIM, TASKS)
    for tower, probability in zip(module.towers, (0.2, 0.7, 0.5), strict=True):
        tower_says(tower, probability)
    assert module(ranker_inputs(1, 1)).sigmoid().flatten().tolist() == pytest.approx([0.2, 0.7, 0.1], abs=1e-6)


def test_a_chain_in_any_order_of_the_tasks() -> None:
    # P(buy) = .5 * .4 * .1 = .02 with cart given click and buy given cart.
    module = ESMM(given={"buy": "cart", "cart": "click"}).build(FIELDS, DIM, ["buy", "cart", "click"])
    for tower, probability in zip(module.towers, (0.1, 0.4, 0.5), strict=True):
        tower_says(tower, probability)
    assert module(ranker_inputs(1, 1)).sigmoid().flatten().tolist() == pytest.approx([0.02, 0.2, 0.5], abs=1e-6)


def test_the_product_is_right_where_probabilities_are_not_extreme() -> None:
    grid = torch.linspace(-8, 8, 33, dtype=torch.float64)
    a, b = torch.meshgrid(grid, grid, indexing="ij")
    torch.testing.assert_close(product_logit(a, b).sigmoid(), a.sigmoid() * b.sigmoid())


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(-90.0, -90.0, -180.0), (500.0, -3.0, -3.0), (-300.0, 40.0, -300.0), (60.0, 60.0, 60 - math.log(2)), (1e4, 1e4, 1e4)],
)
def test_the_product_stays_exact_where_probabilities_round_to_0_or_1(a: float, b: float, expected: float) -> None:
    logits = torch.tensor([a, b], requires_grad=True)
    found = product_logit(logits[0], logits[1])
    assert found.item() == pytest.approx(expected, rel=1e-4)
    functional.binary_cross_entropy_with_logits(found, torch.tensor(1.0)).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_buy_is_never_likelier_than_a_click() -> None:
    torch.manual_seed(0)
    probability_BCT = ESMM(given={"buy": "click"}).build(FIELDS, DIM, TASKS)(ranker_inputs(64)).sigmoid()
    assert (probability_BCT[..., 2] < probability_BCT[..., 0]).all()


def test_the_loss_of_buy_teaches_click_too() -> None:
    torch.manual_seed(0)
    module = ESMM(given={"buy": "click"}).build(FIELDS, DIM, TASKS)
    module(ranker_inputs())[..., 2].sum().backward()
    reached = [bool(tower[0].weight.grad.any()) for tower in module.towers]
    assert reached == [True, False, True]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"order": "click"}, r"sharing\.given names the unknown task 'order': choose from \['click', 'like', 'buy'\]"),
        ({"buy": "view"}, r"sharing\.given names the unknown task 'view'"),
        ({"buy": "buy"}, r"sharing\.given goes round in a circle at 'buy': take 'buy' out"),
        ({"buy": "like", "like": "click", "click": "like"}, r"goes round in a circle at 'like': take 'click' out"),
    ],
)
def test_a_wrong_condition_is_named(given: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ESMM(given=given).build(FIELDS, DIM, TASKS)


def test_a_number_has_no_probability() -> None:
    with pytest.raises(ValueError, match=r"sharing\.given names 'like', which is a number"):
        ESMM(given={"buy": "like"}).check(TASKS, regression={"like"})
    ESMM(given={"buy": "click"}).check(TASKS, regression={"like"})
