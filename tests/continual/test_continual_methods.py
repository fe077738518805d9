"""Aligning, averaging, distillation and the rates of a warm day, on numbers worked by hand."""

import math

import pytest
import torch
from torch import nn

from recsys.continual.average import averaged
from recsys.continual.distil import Distil
from recsys.continual.rewarm import Rewarm, warm_fit
from recsys.continual.weight_align import weight_aligned
from recsys.fit import Fit


def test_rates_rise_and_fall_again() -> None:
    rates = Rewarm(high=1e-3, low=1e-4, warmup=0.1)
    found = [rates(step / 1000) for step in (0, 50, 100, 550, 1000)]
    assert found == pytest.approx([1e-4, 5.5e-4, 1e-3, 5.5e-4, 1e-4])
    assert rates(1.5) == rates(1.0), "longer than foreseen"
    assert Rewarm(high=0.5, low=0.05, warmup=0.0)(0.0) == 0.5


def test_a_warm_day_is_judged_at_its_end() -> None:
    fit = warm_fit(Fit(epochs=20, evaluate_every=1, learning_rate=0.01), 3)
    assert (fit.epochs, fit.evaluate_every, fit.learning_rate) == (3, 3, 0.01)


def rows(*norms: float) -> torch.Tensor:
    """A row of each length."""
    return torch.tensor(norms)[:, None] * torch.tensor([[0.6, 0.8]])


def flags(*places: int, of: int) -> torch.Tensor:
    return torch.isin(torch.arange(of), torch.tensor(places))


def test_new_rows_get_the_mean_length_of_old_ones() -> None:
    item_ID, count_I = rows(1, 3, 4, 4), torch.tensor([5, 6, 4, 7])  # one band, 4 to 7
    found = weight_aligned(item_ID, flags(0, 1, of=4), flags(2, 3, of=4), count_I)
    assert torch.allclose(found, rows(1, 3, 2, 2))  # gamma = 2 / 4


def test_only_items_as_frequent_are_compared() -> None:
    # 1 event: old 1, new 4 -> gamma 0.25; 64 events: old 10, new 5 -> gamma 2; 8 events: no old one, as it is
    item_ID, count_I = rows(1, 4, 10, 5, 7), torch.tensor([1, 1, 64, 100, 8])
    found = weight_aligned(item_ID, flags(0, 2, of=5), flags(1, 3, 4, of=5), count_I)
    assert torch.allclose(found.norm(dim=1), torch.tensor([1.0, 1, 10, 10, 7]))


def test_rows_that_are_neither_old_nor_new_or_zero_stay() -> None:
    item_ID, count_I = rows(9, 2, 0), torch.tensor([0, 3, 3])
    assert torch.equal(weight_aligned(item_ID, flags(1, of=3), flags(2, of=3), count_I), item_ID)
    assert torch.equal(weight_aligned(item_ID, flags(1, of=3), flags(of=3), count_I), item_ID)


def test_averaging_leaves_what_is_new_and_what_cannot_be_averaged() -> None:
    now = {
        "table": torch.tensor([[2.0], [4.0], [6.0]]), "scalar": torch.tensor(3.0), "ids": torch.tensor([7]),
        "mapped": torch.tensor([[1.0]]), "added": torch.tensor([5.0]),
    }  # fmt: skip
    before = {
        "table": torch.tensor([[0.0], [8.0]]), "scalar": torch.tensor(1.0), "ids": torch.tensor([3]),
        "mapped": torch.tensor([[9.0]]),
    }  # fmt: skip
    found = averaged(now, before, 0.25, skip=["mapped"])
    assert found["table"].flatten().tolist() == [1.5, 5.0, 6.0]
    assert found["scalar"].item() == 2.5
    assert {name: found[name].flatten().tolist() for name in ("ids", "mapped", "added")} == {
        "ids": [7], "mapped": [[1.0][0]], "added": [5.0],
    }  # fmt: skip
    assert now["table"][0].item() == 2.0, "the training's own tensors have changed"
    with pytest.raises(ValueError, match="of which it is no growth"):
        averaged({"table": torch.zeros(1, 2)}, {"table": torch.zeros(2, 2)}, 0.5)


def test_distillation_is_the_cross_entropy_of_softened_scores() -> None:
    score_NC, teacher_NC = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2 * math.log(3)]])
    # at temperature 2 the teacher says 1/4 and 3/4, the student e/(1+e) and 1/(1+e)
    expected = 0.25 * math.log1p(math.exp(-1)) + 0.75 * math.log1p(math.exp(1))
    assert Distil(temperature=2)(score_NC, teacher_NC).item() == pytest.approx(expected)


def test_distillation_of_tasks_is_the_cross_entropy_of_softened_logits() -> None:
    loss_BT = Distil(temperature=2).of_tasks(torch.tensor([[2.0]]), torch.tensor([[-2 * math.log(3)]]))
    expected = 0.25 * math.log1p(math.exp(-1)) + 0.75 * math.log1p(math.exp(1))  # the teacher says 1/4
    assert loss_BT.item() == pytest.approx(expected)


def test_the_student_of_a_distillation_comes_to_agree() -> None:
    torch.manual_seed(0)
    teacher_NC, score_NC = torch.randn(6, 5), nn.Parameter(torch.zeros(6, 5))
    optimizer = torch.optim.Adam([score_NC], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        Distil()(score_NC, teacher_NC).mean().backward()
        optimizer.step()
    assert torch.allclose(score_NC.softmax(1), teacher_NC.softmax(1), atol=0.01)
